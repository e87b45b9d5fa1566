package configs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// listener is an address to bind and its name under listen and in expose.
type listener struct {
	name    string
	address Address
	example Address
}

func (l listener) path() string { return "listen." + l.name }

// listeners checks the addresses to bind: each by itself, that no two are the same, and that those which other machines
// can reach were asked for.
func (k *checker) listeners(all []listener, expose []string) {
	names := make([]string, len(all))
	for i, l := range all {
		names[i] = l.name
	}
	for i, name := range expose {
		k.oneOf(fmt.Sprintf("expose[%d]", i), name, names...)
	}
	for i, l := range all {
		if f := l.address.check(l.example); f != (fault{}) {
			k.report(l.path(), f.remedy, "%s", f.message)
			continue
		}
		if !l.address.Loopback() && !slices.Contains(expose, l.name) {
			k.report(l.path(), fmt.Sprintf("add %s to expose if that is meant, or bind 127.0.0.1:%d", l.name, l.address.Port()),
				"%s can be reached from other machines", l.address)
		}
		for _, before := range all[:i] {
			if collide(l.address, before.address) {
				k.report(l.path(), "give each listener a port of its own", "%s is taken by %s, %s", l.address, before.path(), before.address)
			}
		}
	}
}

// collide reports whether two addresses can't be bound at the same time, as far as can be told without looking names up.
func collide(a, b Address) bool {
	if a.Port() != b.Port() || a.Port() == 0 {
		return false
	}
	return a.Unspecified() || b.Unspecified() || strings.EqualFold(a.Host(), b.Host())
}

// advertised checks that others can dial a listener. A malformed address to bind is reported once, by listeners.
func (k *checker) advertised(name string, bound, advertise Address) {
	path := "advertise." + name
	if advertise != "" {
		k.dial(path, advertise, exampleFor(bound))
		return
	}
	if bound.check("") == (fault{}) && (bound.Unspecified() || bound.Port() == 0) {
		k.report(path, "write the address at which others reach it, for example "+string(exampleFor(bound)),
			"is required, since nobody can dial listen.%s, %s", name, bound)
	}
}

// exampleFor returns an address that others might dial for one that is bound.
func exampleFor(bound Address) Address {
	port := bound.Port()
	if port == 0 {
		port = 8001
	}
	return Address("10.0.0.5:" + strconv.Itoa(port))
}

func (k *checker) dialable(path string, addresses []Address, example Address) {
	for i, address := range addresses {
		k.dial(fmt.Sprintf("%s[%d]", path, i), address, example)
	}
}

func (k *checker) dial(path string, address, example Address) {
	if f := address.dialFault(example); f != (fault{}) {
		k.report(path, f.remedy, "%s", f.message)
	}
}
