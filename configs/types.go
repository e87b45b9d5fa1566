package configs

import (
	"math"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size in bytes. It is written as a whole number, alone or with a unit: 512, 16KiB, 16MiB, 2GiB, 1TiB.
type Bytes int64

// Units of [Bytes].
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

// String returns the size in the largest unit of which it is a whole number.
func (b Bytes) String() string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if size := sizeOf(unit); b != 0 && b%size == 0 {
			return strconv.FormatInt(int64(b/size), 10) + unit
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

func sizeOf(unit string) Bytes {
	return map[string]Bytes{"": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB}[unit]
}

// parseBytes returns a fault with neither message nor remedy when text is a size.
func parseBytes(text string) (Bytes, fault) {
	digits := text[:len(text)-len(strings.TrimLeft(text, "0123456789"))]
	unit := strings.TrimSpace(text[len(digits):])
	size := sizeOf(unit)
	if digits == "" || size == 0 {
		if near := regexp.MustCompile(`^(?i:([kmgt])i?b?)$`).FindStringSubmatch(unit); near != nil && digits != "" {
			return 0, faultf("write "+digits+strings.ToUpper(near[1])+"iB", "%q has an unknown unit", text)
		}
		return 0, faultf("write a whole number of bytes or of KiB, MiB, GiB or TiB, for example 16MiB", "%q is not a size", text)
	}
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || Bytes(number) > math.MaxInt64/size {
		return 0, faultf("the largest is "+Bytes(math.MaxInt64/TiB*TiB).String(), "%q is too large", text)
	}
	return Bytes(number) * size, fault{}
}

func parseDuration(text string) (time.Duration, fault) {
	duration, err := time.ParseDuration(text)
	switch {
	case err == nil:
		return duration, fault{}
	case regexp.MustCompile(`^[-+]?[0-9]+(\.[0-9]+)?$`).MatchString(text):
		return 0, faultf("write for example "+text+"ms or "+text+"s", "%q has no unit", text)
	case regexp.MustCompile(`^[-+]?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`).MatchString(text):
		return 0, faultf("the longest is 2562047h", "%q is too long", text)
	}
	return 0, faultf("write a number with a unit of ns, us, ms, s, m or h, for example 500ms", "%q is not a duration", text)
}

// Address is a network address of the form host:port. The host is an IP address, in brackets if of version 6, or a
// name; in an address to listen on it may be empty, which means every interface.
type Address string

// Host returns the part before the port, without brackets; empty if the address is malformed.
func (a Address) Host() string {
	host, _, _ := net.SplitHostPort(string(a))
	return host
}

// Port returns the port; 0 stands for any free one, and for a malformed address.
func (a Address) Port() int {
	_, text, _ := net.SplitHostPort(string(a))
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

// Loopback reports whether only this machine can reach the address. A name other than localhost is never taken for
// loopback: it isn't looked up.
func (a Address) Loopback() bool {
	if strings.EqualFold(a.Host(), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(a.Host())
	return err == nil && ip.Unmap().IsLoopback()
}

// Unspecified reports whether the address stands for every interface, so that nobody can dial it.
func (a Address) Unspecified() bool {
	if a.Host() == "" {
		return true
	}
	ip, err := netip.ParseAddr(a.Host())
	return err == nil && ip.Unmap().IsUnspecified()
}

// check returns the fault of a malformed address; the example is one of the right form.
func (a Address) check(example Address) fault {
	text := string(a)
	if strings.Contains(text, "://") {
		return faultf("write host:port without a scheme, for example "+string(example), "%q is a URL", text)
	}
	host, port, err := net.SplitHostPort(text)
	if _, ipErr := netip.ParseAddr(text); ipErr == nil && (err != nil || !strings.Contains(text, "[")) {
		return faultf("write "+net.JoinHostPort(text, strconv.Itoa(example.Port())), "%q has no port", text)
	}
	if _, portErr := strconv.ParseUint(text, 10, 16); portErr == nil {
		return faultf("write "+net.JoinHostPort(example.Host(), text), "%q has no host", text)
	}
	if err != nil {
		return faultf("write host:port, for example "+string(example)+`; an IPv6 host goes in brackets, as in "[::1]:8000"`,
			"%q is not an address", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return faultf("write a number from 1 to 65535, for example "+string(example), "%q has no valid port", text)
	}
	if !validHost(host) {
		return faultf("write an IP address or a host name, for example "+string(example), "%q has no valid host", text)
	}
	return fault{}
}

// dialFault returns the fault of an address that is malformed or that nobody can dial.
func (a Address) dialFault(example Address) fault {
	if f := a.check(example); f != (fault{}) {
		return f
	}
	if a.Unspecified() || a.Port() == 0 {
		return faultf("write the host and the port of one machine, for example "+string(example), "%q cannot be dialled", string(a))
	}
	return fault{}
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return !nameRune(r) && r != '_' }) {
			return false
		}
	}
	// A last label of digits alone can only be an IP address that is wrong.
	_, err := strconv.ParseUint(labels[len(labels)-1], 10, 64)
	return len(host) <= 253 && err != nil
}

func nameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-'
}
