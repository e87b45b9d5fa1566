package controller

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAProblemIsToldInWordsForOperators(t *testing.T) {
	for _, c := range []struct {
		w    *connection
		want string
	}{
		{&connection{}, "not connected yet"},
		{&connection{err: errors.New("no heartbeat for 400ms")}, "no heartbeat for 400ms"},
		{&connection{err: status.Error(codes.Unavailable, "EOF")}, "EOF"},
		{&connection{err: status.Error(codes.Unavailable, "connection refused"), closedInRow: 1}, "nobody listens at its address: its process has ended, or never began"},
		{&connection{err: status.Error(codes.Unavailable, "EOF"), visit: visit{session: &session{}}}, ""},
	} {
		if got := c.w.problem(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
