package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/memberlist"
)

// maxGossipName bounds a gossip name in bytes, so that every message about a member fits in a packet.
const maxGossipName = 256

// gossipName is what memberlist knows a member by. It is unique to each start of a process: memberlist takes most of a
// minute to accept a known name at a new port.
func gossipName(name, incarnation string) string {
	return name + "/" + incarnation
}

// metadata is the JSON that a member gossips about itself. As memberlist's delegate it does nothing else.
type metadata []byte

var _ memberlist.Delegate = metadata(nil)

type metadataJSON struct {
	Role      Role      `json:"role"`
	Addresses Addresses `json:"addresses"`
}

// encodeMetadata refuses what is too large, since memberlist would panic on it.
func encodeMetadata(role Role, addresses Addresses) (metadata, error) {
	b, err := json.Marshal(metadataJSON{role, addresses})
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("metadata of %d bytes exceeds gossip's limit of %d: shorten the advertised addresses",
			len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// decodeMember reads what a node says of itself; the node may be anyone. Unknown fields are left to later versions.
func decodeMember(node *memberlist.Node) (Member, error) {
	name, incarnation, ok := strings.Cut(node.Name, "/")
	if !ok || name == "" || incarnation == "" {
		return Member{}, errors.New("the gossip name is not of the form name/incarnation")
	}
	var meta metadataJSON
	if err := json.Unmarshal(node.Meta, &meta); err != nil {
		return Member{}, fmt.Errorf("decode metadata: %w", err)
	}
	if meta.Role != Controller && meta.Role != Worker {
		return Member{}, fmt.Errorf("unknown role %q", meta.Role)
	}
	return Member{
		Name:          name,
		Incarnation:   incarnation,
		Role:          meta.Role,
		Addresses:     meta.Addresses,
		GossipAddress: node.Address(),
	}, nil
}

func (m metadata) NodeMeta(int) []byte               { return m }
func (m metadata) NotifyMsg([]byte)                  {}
func (m metadata) GetBroadcasts(int, int) [][]byte   { return nil }
func (m metadata) LocalState(bool) []byte            { return nil }
func (m metadata) MergeRemoteState(_ []byte, _ bool) {}
