package etcd

import (
	"context"
	"errors"
	"log/slog"
	"runtime"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger passes etcd's warnings and errors on to l. What etcd would end the
// process for goes to the hook, if there is one, instead.
func zapLogger(l *slog.Logger, hook *fatalHook) *zap.Logger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	var opts []zap.Option
	if hook != nil {
		opts = append(opts, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
	}
	return zap.New(&slogCore{l.With("component", "etcd")}, opts...)
}

// slogCore is a zapcore.Core that writes to a slog.Logger, from warnings up.
type slogCore struct{ log *slog.Logger }

// routine are warnings that tell nothing an operator could act on: those about
// how this one-member server is set up, and slow disks' every request.
var routine = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"apply request took too long":                            true,
	"simple token is not cryptographically signed":           true,
	"failed to publish local member to cluster through raft": true,
}

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{c.log.With(attrs(fields)...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) || routine[e.Message] {
		return ce
	}
	return ce.AddCore(e, c)
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, 2*len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, f.Key, v)
		}
	}
	return out
}

// fatalHook turns the first fatal log entry into an error on a channel and
// ends the goroutine that wrote it.
type fatalHook struct{ failed chan error }

func newFatalHook() *fatalHook { return &fatalHook{make(chan error, 1)} }

// OnWrite implements zapcore.CheckWriteHook.
func (h *fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(e.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = &fatalError{e.Message, cause}
		}
	}
	select {
	case h.failed <- err:
	default:
	}
	runtime.Goexit()
}

type fatalError struct {
	message string
	cause   error
}

func (e *fatalError) Error() string { return e.message + ": " + e.cause.Error() }
func (e *fatalError) Unwrap() error { return e.cause }
