package server

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"

	"github.com/gnomon-vm/gnomon/server/access"
)

// authorizing lets calls pass that the caller may make, and notes of those that
// change something whose change it is.
type authorizing struct{ s *Server }

func (a authorizing) check(ctx context.Context, procedure string) (context.Context, error) {
	c, unknown := access.From(ctx)
	rule, ok := access.RuleOf(procedure)
	if !ok {
		return nil, refuse(connect.CodePermissionDenied, "%s has no rule of who may call it", procedure)
	}
	if err := rule.Check(c); err != nil {
		err = denial(err, unknown)
		a.s.log.Warn("call refused", "procedure", procedure, "caller", c.Name, "why", err)
		return nil, err
	}
	if rule.Changes {
		ctx = withChange(ctx, c.Name, procedure)
	}
	return ctx, nil
}

// denial gives a failed check its code. It tells why the caller is unknown, if
// that is why.
func denial(err, unknown error) error {
	var coded *connect.Error
	switch {
	case errors.As(unknown, &coded):
		return unknown // such as a store that does not answer
	case errors.Is(err, access.ErrUnknown) && unknown != nil:
		return refuse(connect.CodeUnauthenticated, "%w", unknown)
	case errors.Is(err, access.ErrUnknown):
		return refuse(connect.CodeUnauthenticated, "%w", err)
	}
	return refuse(connect.CodePermissionDenied, "%w", err)
}

// WrapUnary implements connect.Interceptor.
func (a authorizing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, err := a.check(ctx, req.Spec().Procedure)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (a authorizing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (a authorizing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, err := a.check(ctx, conn.Spec().Procedure)
		if err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// guarded is a plain HTTP handler behind a rule.
func (s *Server) guarded(rule func(*http.Request) access.Rule, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, unknown := access.From(r.Context())
		err := rule(r).Check(c)
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		err = denial(err, unknown)
		status := http.StatusForbidden
		switch connect.CodeOf(err) {
		case connect.CodeUnauthenticated:
			status = http.StatusUnauthorized
			w.Header().Set("WWW-Authenticate", "Bearer")
		case connect.CodeUnavailable:
			status = http.StatusServiceUnavailable
		}
		http.Error(w, err.Error(), status)
	})
}

// speaksFor returns an error unless the caller may act as a host's daemon.
func speaksFor(ctx context.Context, host string) error {
	c, err := access.From(ctx)
	if err == nil && c.SpeaksFor(host) {
		return nil
	}
	return refuse(connect.CodePermissionDenied, "%s cannot speak for host %q: start its daemon with the --name that it joined by", c.Name, shorten(host))
}
