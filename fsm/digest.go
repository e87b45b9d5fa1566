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
func (s *State) Digest() string {
	state := s.canonical()
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

// appendState encodes equal states as equal bytes: the records have no maps, whose order could differ.
func appendState(data []byte, state *logpb.State) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(data, state)
	if err != nil {
		panic(fmt.Sprintf("fsm: encode the state: %v", err)) // only text that isn't UTF-8 could, and none passes Unmarshal
	}
	return data
}
