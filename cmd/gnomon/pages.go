package main

import (
	"context"
	"iter"

	"connectrpc.com/connect"
	"github.com/gnomon-vm/gnomon/wire/serverpb"
	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// pages yields what is on all pages of a list, and the first error last.
func pages[T any](page func(token string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for token := ""; ; {
			items, next, err := page(token)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if token = next; token == "" {
				return
			}
		}
	}
}

// maskOf names the fields wanted; none means all.
func maskOf(fields []string) *fieldmaskpb.FieldMask {
	if len(fields) == 0 {
		return nil
	}
	return &fieldmaskpb.FieldMask{Paths: fields}
}

func allAccounts(ctx context.Context, c serverpbconnect.ManagementServiceClient, fields ...string) iter.Seq2[*serverpb.Account, error] {
	return pages(func(token string) ([]*serverpb.Account, string, error) {
		r, err := c.ListAccounts(ctx, connect.NewRequest(&serverpb.ListAccountsRequest{PageToken: token, ReadMask: maskOf(fields)}))
		if err != nil {
			return nil, "", err
		}
		return r.Msg.GetAccounts(), r.Msg.GetNextPageToken(), nil
	})
}

func allHosts(ctx context.Context, c serverpbconnect.ManagementServiceClient, fields ...string) iter.Seq2[*serverpb.Host, error] {
	return pages(func(token string) ([]*serverpb.Host, string, error) {
		r, err := c.ListHosts(ctx, connect.NewRequest(&serverpb.ListHostsRequest{PageToken: token, ReadMask: maskOf(fields)}))
		if err != nil {
			return nil, "", err
		}
		return r.Msg.GetHosts(), r.Msg.GetNextPageToken(), nil
	})
}

func allAssociations(ctx context.Context, c serverpbconnect.ManagementServiceClient, fields ...string) iter.Seq2[*serverpb.Association, error] {
	return associationsOf(ctx, c, "", fields...)
}

// associationsOf are those of one account, of all if it is empty.
func associationsOf(ctx context.Context, c serverpbconnect.ManagementServiceClient, account string, fields ...string) iter.Seq2[*serverpb.Association, error] {
	return pages(func(token string) ([]*serverpb.Association, string, error) {
		r, err := c.ListAssociations(ctx, connect.NewRequest(&serverpb.ListAssociationsRequest{Account: account, PageToken: token, ReadMask: maskOf(fields)}))
		if err != nil {
			return nil, "", err
		}
		return r.Msg.GetAssociations(), r.Msg.GetNextPageToken(), nil
	})
}
