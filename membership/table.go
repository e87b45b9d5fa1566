package membership

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// table holds the living members as memberlist tells them. It calls back with its own lock held: so the methods neither
// wait nor call memberlist, and Members is answered from here, where memberlist's own nodes would change under the reader.
type table struct {
	log hclog.Logger

	mu      sync.Mutex
	members map[string]Member // by gossip name
	changed chan struct{}     // closed and replaced at each change
}

var _ memberlist.EventDelegate = (*table)(nil)

func newTable(log hclog.Logger) *table {
	return &table{log: log, members: make(map[string]Member), changed: make(chan struct{})}
}

func (t *table) NotifyJoin(node *memberlist.Node) {
	if m, ok := t.put(node); ok {
		t.log.Info("member joined", "member", m.Name, "incarnation", m.Incarnation, "role", m.Role, "address", m.GossipAddress)
	}
}

func (t *table) NotifyUpdate(node *memberlist.Node) {
	t.put(node)
}

func (t *table) NotifyLeave(node *memberlist.Node) {
	if m, ok := t.remove(node.Name); ok {
		t.log.Info("member gone", "member", m.Name, "incarnation", m.Incarnation, "role", m.Role, "address", m.GossipAddress)
	}
}

// put takes a member in, unless what it says of itself makes no sense.
func (t *table) put(node *memberlist.Node) (Member, bool) {
	m, err := decodeMember(node)
	if err != nil {
		t.remove(node.Name)
		t.log.Warn("skipping a gossip member that is neither controller nor worker; is another program using this gossip address or key?",
			"node", node.Name, "address", node.Address(), "error", err)
		return Member{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.members[node.Name]; !ok || old != m {
		t.members[node.Name] = m
		t.announce()
	}
	return m, true
}

func (t *table) remove(gossipName string) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.members[gossipName]
	if ok {
		delete(t.members, gossipName)
		t.announce()
	}
	return m, ok
}

func (t *table) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *table) snapshot() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.members), func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
}

func (t *table) nextChange() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// hasAddress says whether a living member gossips at this "ip:port".
func (t *table) hasAddress(address string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.members {
		if m.GossipAddress == address {
			return true
		}
	}
	return false
}
