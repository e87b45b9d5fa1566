// Package netlab gives a test or a benchmark a network of its own: one network
// namespace for each host, joined by a bridge, on which hosts can be cut off so
// that packets vanish without a sign. No address, device or file of it can be
// seen from outside, and all of it ends with the program.
//
// The program itself is on the network too, as Hub, and reaches all hosts. It
// has to start by calling Main. Linux, root and the tools ip, bridge and nsenter
// are needed.
package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
)

// Hub is the name of the program's own place on the network.
const Hub = "hub"

// hubLink is the bridge, which is also the program's device on the network;
// hostLink is the device of each host.
const (
	hubLink  = "orrery0"
	hostLink = "eth0"
)

// maxHosts and maxName are what the addresses and the names of devices have
// room for.
const (
	maxHosts = 200
	maxName  = 12
)

// ErrUnavailable says that this system or this user can't have such a network;
// the error's text says why.
var ErrUnavailable = errors.New("no network namespaces")

// Lab is a network. Its methods may be called from any goroutine.
type Lab struct {
	hub   place
	hosts map[string]place
	// built says that there may be devices to remove.
	built bool

	mu sync.Mutex
	// dark are the hosts that are cut off; deaf the pairs of which the second
	// does not hear the first.
	dark map[string]bool
	deaf map[[2]string]bool
}

// place is where programs can be: the hub or a host.
type place struct {
	name    string
	address netip.Addr
	// space is the namespace, open; nil: this program's own.
	space *os.File
}

// New makes a network of hosts with these names, each of at most 12 letters and
// digits. Close must be called before there can be another one. The error is ErrUnavailable when the program
// does not run inside Main.
func New(hosts ...string) (*Lab, error) {
	if !inside() {
		return nil, fmt.Errorf("%w: the program has to start by netlab.Main", ErrUnavailable)
	}
	if len(hosts) > maxHosts {
		return nil, fmt.Errorf("a network of %d hosts: at most %d", len(hosts), maxHosts)
	}
	base := netip.AddrFrom4([4]byte{10, 99, 0, 1})
	l := &Lab{hub: place{name: Hub, address: base}, hosts: map[string]place{}, dark: map[string]bool{}, deaf: map[[2]string]bool{}}
	all := []place{l.hub}
	for i, name := range hosts {
		if _, ok := l.hosts[name]; ok || name == Hub || name == "" || len(name) > maxName || strings.ContainsAny(name, "/ .:%") {
			return nil, errors.Join(fmt.Errorf("host %q: names are distinct, not %q, and have 1 to %d letters and digits", name, Hub, maxName), l.Close())
		}
		space, err := newSpace()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("host %s: %w", name, err), l.Close())
		}
		h := place{name: name, address: netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 11)}), space: space}
		l.hosts[name] = h
		all = append(all, h)
	}
	if err := vacant(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.built = true
	if err := build(all); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Address is the IP address of a host, or of Hub.
func (l *Lab) Address(name string) string {
	p, err := l.place(name)
	if err != nil {
		return ""
	}
	return p.address.String()
}

// Place is the address of a host, and the words to put before a command line so
// that the command runs there, in the same process. It suits
// devcluster.Options.Host. Both are empty for a name that is not a host's.
func (l *Lab) Place(name string) (address string, wrap []string) {
	p, ok := l.hosts[name]
	if !ok {
		return "", nil
	}
	return p.address.String(), p.wrap()
}

// Cut cuts a host off: what it sends and what is sent to it vanishes, and
// nobody is told. Its own loopback goes on.
func (l *Lab) Cut(host string) error { return l.setDark(host, true) }

// Heal ends what Cut has begun.
func (l *Lab) Heal(host string) error { return l.setDark(host, false) }

// CutBetween makes two places, each a host or Hub, unable to hear each other.
func (l *Lab) CutBetween(a, b string) error { return errors.Join(l.CutOneWay(a, b), l.CutOneWay(b, a)) }

// HealBetween ends what CutBetween and CutOneWay have begun.
func (l *Lab) HealBetween(a, b string) error {
	return errors.Join(l.setDeaf(a, b, false), l.setDeaf(b, a, false))
}

// CutOneWay makes what one place sends to another vanish. The other direction
// goes on.
func (l *Lab) CutOneWay(from, to string) error { return l.setDeaf(from, to, true) }

// HealAll ends all cuts.
func (l *Lab) HealAll() error {
	l.mu.Lock()
	var dark []string
	for host := range l.dark {
		dark = append(dark, host)
	}
	var deaf [][2]string
	for pair := range l.deaf {
		deaf = append(deaf, pair)
	}
	l.mu.Unlock()
	var failed []error
	for _, host := range dark {
		failed = append(failed, l.Heal(host))
	}
	for _, pair := range deaf {
		failed = append(failed, l.setDeaf(pair[0], pair[1], false))
	}
	return errors.Join(failed...)
}

// Close takes the network down. Programs that still run in a host keep its
// namespace, without a way out of it.
func (l *Lab) Close() error {
	var failed []error
	if l.built {
		l.built = false
		failed = append(failed, unbuild())
	}
	for _, p := range l.hosts {
		failed = append(failed, p.space.Close())
	}
	l.hosts = nil
	return errors.Join(failed...)
}

func (l *Lab) place(name string) (place, error) {
	if name == Hub {
		return l.hub, nil
	}
	if p, ok := l.hosts[name]; ok {
		return p, nil
	}
	return place{}, fmt.Errorf("there is no host %q", name)
}

func (l *Lab) setDark(host string, dark bool) error {
	p, ok := l.hosts[host]
	if !ok {
		return fmt.Errorf("cut or heal %q: there is no such host", host)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dark[host] == dark {
		return nil
	}
	if err := p.forward(!dark); err != nil {
		return err
	}
	if dark {
		l.dark[host] = true
	} else {
		delete(l.dark, host)
	}
	return nil
}

func (l *Lab) setDeaf(from, to string, deaf bool) error {
	source, err := l.place(from)
	if err != nil {
		return err
	}
	target, err := l.place(to)
	if err != nil {
		return err
	}
	pair := [2]string{from, to}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf[pair] == deaf {
		return nil
	}
	if err := target.listen(source, !deaf); err != nil {
		return err
	}
	if deaf {
		l.deaf[pair] = true
	} else {
		delete(l.deaf, pair)
	}
	return nil
}

// Cuts are the present cuts, for messages.
func (l *Lab) Cuts() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for host := range l.dark {
		all = append(all, host)
	}
	for pair := range l.deaf {
		all = append(all, pair[0]+"→"+pair[1])
	}
	slices.Sort(all)
	return all
}
