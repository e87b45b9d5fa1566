package devcluster

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// Kind is what a process is.
type Kind string

// The kinds, as the command line calls them.
const (
	Controller Kind = "controller"
	Worker     Kind = "workerd"
)

// member is one process to be.
type member struct {
	name      string
	kind      Kind
	addresses map[string]string
	config    document
}

// plan gives all processes their ports and configurations.
func plan(o Options) ([]member, error) {
	var ports portPicker
	defer ports.release()
	var members []member
	var peers, gossip []string
	for i := range o.Controllers {
		m := member{name: fmt.Sprintf("c%d", i+1), kind: Controller, addresses: ports.pick("inference", "http", "control", "peer", "raft", "gossip")}
		peers = append(peers, m.addresses["peer"])
		gossip = append(gossip, m.addresses["gossip"])
		members = append(members, m)
	}
	for i := range o.Workers {
		members = append(members, member{name: fmt.Sprintf("w%d", i+1), kind: Worker, addresses: ports.pick("session", "http", "gossip")})
	}
	if ports.err != nil {
		return nil, fmt.Errorf("find free ports: %w", ports.err)
	}
	for i := range members {
		m := &members[i]
		m.config = document{"name": m.name}
		for listener, address := range m.addresses {
			m.config["listen."+listener] = address
		}
		if m.kind == Controller {
			m.config["data_dir"] = quote(filepath.Join(o.Dir, m.name, "data"))
			m.config["cluster.controllers"] = list(peers)
			maps.Copy(m.config, o.ControllerKeys)
			continue
		}
		m.config["model_dir"] = quote(o.ModelDir)
		m.config["cluster.gossip_seeds"] = list(gossip)
		m.config["devices"] = "[{kind: cpu, engines: " + list(o.Engines) + "}]"
		maps.Copy(m.config, o.WorkerKeys)
	}
	return members, nil
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func list(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// document is a configuration: by dotted key, the value as YAML.
type document map[string]string

// String is the document as YAML.
func (d document) String() string {
	var text strings.Builder
	var above []string
	for _, key := range slices.Sorted(maps.Keys(d)) {
		path := strings.Split(key, ".")
		sections := path[:len(path)-1]
		for i, section := range sections {
			if i < len(above) && slices.Equal(above[:i+1], sections[:i+1]) {
				continue
			}
			fmt.Fprintf(&text, "%s%s:\n", strings.Repeat("  ", i), section)
		}
		above = sections
		fmt.Fprintf(&text, "%s%s: %s\n", strings.Repeat("  ", len(sections)), path[len(path)-1], d[key])
	}
	return text.String()
}

// portPicker finds ports that are free by both TCP and UDP, and keeps them so
// until all are found.
type portPicker struct {
	held []interface{ Close() error }
	err  error
}

// pick returns a loopback address for each listener.
func (p *portPicker) pick(listeners ...string) map[string]string {
	addresses := map[string]string{}
	for _, listener := range listeners {
		addresses[listener] = p.one()
	}
	return addresses
}

func (p *portPicker) one() string {
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.err = err
			return ""
		}
		p.held = append(p.held, l)
		udp, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			p.held = append(p.held, udp)
			p.err = nil
			return l.Addr().String()
		}
		// Another port, while this one stays held.
		p.err = err
	}
	return ""
}

func (p *portPicker) release() {
	for _, l := range p.held {
		_ = l.Close()
	}
}
