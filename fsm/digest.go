package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Digest is the hex sha256 of all that replicas must agree on: the state in its canonical order, without the header.
// The remembered messages are left out, so that a release may word a refusal better and still agree with the one
// before. It takes time proportional to the state.
func (s *State) Digest() string { return digestOf(s.canonical()) }

// digestOf strips the canonical form of what isn't in the digest.
func digestOf(state *logpb.State) string {
	state.Header = nil
	for i, row := range state.Remembered {
		result := row.GetResult()
		state.Remembered[i] = &logpb.Remembered{
			RequestId:       row.GetRequestId(),
			RequestedUnixNs: row.GetRequestedUnixNs(),
			Result: &logpb.Result{
				Reason: result.GetReason(), ModelIds: result.GetModelIds(), Digest: result.GetDigest(), Index: result.GetIndex(),
			},
		}
	}
	sum := sha256.Sum256(appendState(nil, state))
	return hex.EncodeToString(sum[:])
}

// checkDigest looks at the form only: whether a digest is the one that this replica came to, the Replica knows.
func (s *State) checkDigest(c *logpb.CheckDigest) *logpb.Result {
	sum, err := hex.DecodeString(c.GetDigest())
	switch {
	case err != nil || len(sum) != sha256.Size:
		return refuse(logpb.Reason_REASON_INVALID, "the digest %q is not the %d hex digits of a sha256", c.GetDigest(), 2*sha256.Size)
	case c.GetIndex() == 0 || c.GetIndex() >= s.index:
		return refuse(logpb.Reason_REASON_INVALID, "the digest is said to be of index %d, which is not before the command's own, %d",
			c.GetIndex(), s.index)
	}
	return &logpb.Result{}
}

// appendState encodes equal states as equal bytes: the records have no maps, whose order could differ.
func appendState(data []byte, state *logpb.State) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(data, state)
	if err != nil {
		panic(fmt.Sprintf("fsm: encode the state: %v", err)) // only text that isn't UTF-8 could, and none passes Unmarshal
	}
	return data
}
