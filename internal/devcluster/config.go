package devcluster

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
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
	// wrap are the words before the command line.
	wrap   []string
	config document
}

// listeners of the kinds, as the configuration calls them.
func (k Kind) listeners() []string {
	if k == Controller {
		return []string{"inference", "http", "control", "peer", "raft", "gossip"}
	}
	return []string{"session", "http", "gossip"}
}

// plan gives all processes their addresses and configurations.
func plan(o Options) ([]member, error) {
	var members []member
	for i := range o.Controllers {
		members = append(members, member{name: fmt.Sprintf("c%d", i+1), kind: Controller})
	}
	for i := range o.Workers {
		members = append(members, member{name: fmt.Sprintf("w%d", i+1), kind: Worker})
	}
	if err := place(members, o.Host); err != nil {
		return nil, err
	}
	var peers, gossip []string
	for _, m := range members[:o.Controllers] {
		peers = append(peers, m.addresses["peer"])
		gossip = append(gossip, m.addresses["gossip"])
	}
	for i := range members {
		m := &members[i]
		m.config = document{"name": m.name}
		for listener, address := range m.addresses {
			m.config["listen."+listener] = address
		}
		if o.Host != nil {
			m.config["expose"] = list(m.kind.listeners())
		}
		if m.kind == Controller {
			m.config["data_dir"] = quote(dataDir(o, m.name))
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

func dataDir(o Options, name string) string {
	if o.DataDir != nil {
		return o.DataDir(name)
	}
	return filepath.Join(o.Dir, name, "data")
}

// firstPort is that of the first listener of a process that has an address of
// its own.
const firstPort = 8000

// place gives all processes their addresses: free ports on loopback, or the
// same ports on an address each.
func place(members []member, host func(string) (string, []string)) error {
	if host != nil {
		for i := range members {
			m := &members[i]
			address, wrap := host(m.name)
			m.addresses, m.wrap = map[string]string{}, wrap
			if net.ParseIP(address) == nil {
				return fmt.Errorf("the host of %s has the address %q, which is not an IP address", m.name, address)
			}
			for j, listener := range m.kind.listeners() {
				m.addresses[listener] = net.JoinHostPort(address, strconv.Itoa(firstPort+j))
			}
		}
		return nil
	}
	var ports portPicker
	defer ports.release()
	for i := range members {
		members[i].addresses = ports.pick(members[i].kind.listeners()...)
	}
	if ports.err != nil {
		return fmt.Errorf("find free ports: %w", ports.err)
	}
	return nil
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
