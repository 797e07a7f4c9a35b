package embedded

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// Transport returns a RoundTripper that calls the API in process, whatever the
// host of the URL: the same requests as over a network, without one.
func (d *DB) Transport() http.RoundTripper { return transport{d} }

type transport struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper. The answer is complete when it
// returns; a handler that panics is an error, as a lost connection would be.
func (t transport) RoundTrip(req *http.Request) (res *http.Response, err error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RequestURI = req.URL.RequestURI()
	in.Host = req.URL.Host
	out := &response{header: http.Header{}}
	defer func() {
		if r := recover(); r != nil {
			res, err = nil, fmt.Errorf("serve %s: %v", req.URL.Path, r)
		}
	}()
	t.handler.ServeHTTP(out, in)
	out.WriteHeader(http.StatusOK) // unless it has been told
	return &http.Response{
		StatusCode:    out.status,
		Status:        fmt.Sprintf("%d %s", out.status, http.StatusText(out.status)),
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        out.header,
		Body:          io.NopCloser(&out.body),
		ContentLength: int64(out.body.Len()),
		Request:       req,
	}, nil
}

// response collects what a handler answers.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}
