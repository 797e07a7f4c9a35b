package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/gnomon-vm/gnomon/config"
)

// errorDomain is that of the reasons that errors carry for programs.
const errorDomain = "gnomon"

// refuse returns an error with a code and words for people, and a reason for
// programs that follows from the code.
func refuse(code connect.Code, format string, args ...any) error {
	return refusal(code, reasons[code], fmt.Errorf(format, args...))
}

// refuseField is refuse for a field of the request that is at fault.
func refuseField(field, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return refusal(connect.CodeInvalidArgument, reasonInvalid, err, fieldViolation(field, err))
}

// The reasons that are more exact than the code.
const (
	reasonInvalid       = "INVALID_FIELD"
	reasonInvalidConfig = "INVALID_CONFIGURATION"
	reasonConflict      = "CHANGED_MEANWHILE"
	reasonStoreFull     = "STORE_FULL"
	reasonStoreAway     = "STORE_UNAVAILABLE"
	reasonStoreReadOnly = "STORE_READ_ONLY"
	reasonVersionGone   = "VERSION_NOT_KEPT"
	reasonDefinition    = "INVALID_DEFINITION"
	reasonOverCapacity  = "OVER_CAPACITY"
	reasonNotInTime     = "NOT_IN_TIME"
)

// reasons are those of errors that have no more exact one.
var reasons = map[connect.Code]string{
	connect.CodeInvalidArgument:    "INVALID_REQUEST",
	connect.CodeNotFound:           "NOT_FOUND",
	connect.CodeAlreadyExists:      "ALREADY_EXISTS",
	connect.CodeFailedPrecondition: "NOT_POSSIBLE_NOW",
	connect.CodeAborted:            reasonConflict,
	connect.CodeUnauthenticated:    "CALLER_UNKNOWN",
	connect.CodePermissionDenied:   "NOT_ALLOWED",
	connect.CodeUnavailable:        "UNAVAILABLE",
}

func refusal(code connect.Code, reason string, err error, more ...proto.Message) error {
	e := connect.NewError(code, err)
	for _, m := range append([]proto.Message{&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain}}, more...) {
		if d, err := connect.NewErrorDetail(m); err == nil {
			e.AddDetail(d)
		}
	}
	return e
}

func fieldViolation(field string, err error) *errdetails.BadRequest {
	return &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: err.Error()}}}
}

// refuseConfig refuses values, each problem with its field.
func refuseConfig(err error) error {
	bad := &errdetails.BadRequest{}
	for _, problem := range unjoin(err) {
		field := "values"
		var p *config.Problem
		if errors.As(problem, &p) && p.Key != "" {
			field = "values." + p.Key
		}
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: problem.Error()})
	}
	return refusal(connect.CodeInvalidArgument, reasonInvalidConfig, err, bad)
}

// unjoin returns the errors that errors.Join has joined, at any depth.
func unjoin(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, unjoin(e)...)
	}
	return all
}

// errConflict is returned when a transaction was overtaken again and again.
func errConflict() error {
	return refusal(connect.CodeAborted, reasonConflict, errors.New("others keep changing the same: try again"))
}

// storeError gives an error of etcd a code and words for an operator.
func storeError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return refusal(connect.CodeResourceExhausted, reasonStoreFull,
			fmt.Errorf("the store is full: %w; compact and defragment etcd, or raise its quota", err))
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return refusal(connect.CodeUnavailable, reasonStoreReadOnly,
			fmt.Errorf("the store may not be written: %w; give gnomon's etcd user read and write permission for all keys from /gnomon/", err))
	}
	return refusal(connect.CodeUnavailable, reasonStoreAway,
		fmt.Errorf("the store does not answer (%w): see that etcd runs and its disk has space", err))
}
