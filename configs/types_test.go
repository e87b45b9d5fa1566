package configs

import (
	"encoding/base64"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBytesString(t *testing.T) {
	for bytes, want := range map[Bytes]string{
		0: "0", 1: "1", 1023: "1023", KiB: "1KiB", 1536: "1536", 1536 * KiB: "1536KiB", 64 * MiB: "64MiB",
		2 * GiB: "2GiB", 3 * TiB: "3TiB", 1024 * TiB: "1024TiB", math.MaxInt64: "9223372036854775807", -2 * KiB: "-2KiB",
	} {
		if got := bytes.String(); got != want {
			t.Errorf("String of %d is %q, want %q", int64(bytes), got, want)
		}
	}
}

func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]Bytes{1, KiB, MiB, GiB, TiB}).Draw(t, "unit")
		want := unit * Bytes(rapid.Int64Range(0, math.MaxInt64/int64(unit)).Draw(t, "count"))
		got, f := parseBytes(want.String())
		if got != want || f != (fault{}) {
			t.Fatalf("%s parses to %d (%v), want %d", want, got, f, want)
		}
	})
}

func TestAddress(t *testing.T) {
	tests := []struct {
		address               Address
		host                  string
		port                  int
		loopback, unspecified bool
	}{
		{"127.0.0.1:8001", "127.0.0.1", 8001, true, false},
		{"127.9.9.9:0", "127.9.9.9", 0, true, false},
		{"LocalHost:1", "LocalHost", 1, true, false},
		{"[::1]:80", "::1", 80, true, false},
		{"[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", 80, true, false},
		{"[::ffff:0.0.0.0]:80", "::ffff:0.0.0.0", 80, false, true},
		{"10.0.0.1:65535", "10.0.0.1", 65535, false, false},
		{"[fe80::1%eth0]:80", "fe80::1%eth0", 80, false, false},
		{"c1.example:80", "c1.example", 80, false, false},
		{"localhost.example:80", "localhost.example", 80, false, false},
		{":80", "", 80, false, true},
		{"0.0.0.0:80", "0.0.0.0", 80, false, true},
		{"[::]:80", "::", 80, false, true},
	}
	for _, test := range tests {
		a := test.address
		if f := a.check("127.0.0.1:1"); f != (fault{}) {
			t.Errorf("%s is refused: %v", a, f)
		}
		if a.Host() != test.host || a.Port() != test.port || a.Loopback() != test.loopback || a.Unspecified() != test.unspecified {
			t.Errorf("%s has host %q, port %d, loopback %v, unspecified %v", a, a.Host(), a.Port(), a.Loopback(), a.Unspecified())
		}
	}
	for _, bad := range []Address{"", "x", "1.2.3.4", "::1", "[::1]", "a:b", "a:-1", "a:65536", "a..b:1", "a/b:1", "1.2.3:1", "a:1:2", "http://a:1"} {
		if bad.check("127.0.0.1:1") == (fault{}) {
			t.Errorf("%q is accepted", bad)
		}
		if bad.Port() != 0 && bad.Host() != "" && bad != "a..b:1" && bad != "a/b:1" && bad != "1.2.3:1" {
			t.Errorf("%q has a host and a port", bad)
		}
	}
}

func TestCollide(t *testing.T) {
	for _, test := range []struct {
		a, b Address
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.1:2", false},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"0.0.0.0:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", ":1", true},
		{"host:1", "HOST:1", true},
	} {
		if got := collide(test.a, test.b); got != test.want {
			t.Errorf("collide(%s, %s) = %v", test.a, test.b, got)
		}
	}
}

func TestClosest(t *testing.T) {
	keys := []string{"heartbeat_timeout", "election_timeout", "level", "data_dir"}
	for word, want := range map[string]string{
		"heartbeet_timeout": "heartbeat_timeout", "heartbeatTimeout": "heartbeat_timeout", "DATA-DIR": "data_dir",
		"levle": "", "leve": "level", "tls": "", "": "", "electron_timeout": "election_timeout",
	} {
		if got := closest(word, keys); got != want {
			t.Errorf("closest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestReadGossipKey(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	encoded := func(size int) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", size))) }
	for _, size := range []int{16, 24, 32} {
		if key, err := ReadGossipKey(write(encoded(size) + "\n")); err != nil || len(key) != size {
			t.Errorf("%d bytes: got %d, %v", size, len(key), err)
		}
	}
	for text, want := range map[string]string{
		"":          "has 0 bytes",
		encoded(20): "has 20 bytes",
		"not it!":   "is not base64",
	} {
		_, err := ReadGossipKey(write(text))
		if err == nil || !strings.Contains(err.Error(), want) || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := ReadGossipKey(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file gave a key")
	}
}
