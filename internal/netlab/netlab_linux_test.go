package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain runs the tests in a network of their own, or without one lets them
// skip.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "echo" {
		os.Exit(echo(os.Args[2]))
	}
	status, err := Main(m.Run)
	if errors.Is(err, ErrUnavailable) {
		fmt.Println(err)
		status = m.Run()
	} else if err != nil {
		fmt.Println(err)
	}
	os.Exit(status)
}

// echo is a program in a host: it sends back each line that it gets. A line
// "call ADDRESS" is answered by whether that address answers.
func echo(address string) int {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return 1
		}
		go func() {
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				answer := lines.Text()
				if to, ok := strings.CutPrefix(answer, "call "); ok {
					answer = fmt.Sprint(call(to))
				}
				fmt.Fprintln(conn, answer)
			}
		}()
	}
}

const brief = 300 * time.Millisecond

// call makes one connection and sends a line over it.
func call(address string) error {
	conn, err := net.DialTimeout("tcp", address, brief)
	if err != nil {
		return err
	}
	defer conn.Close()
	return exchange(conn, "hello")
}

func exchange(conn net.Conn, line string) error {
	if err := conn.SetDeadline(time.Now().Add(4 * brief)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.TrimSpace(got) != line {
		return errors.New(strings.TrimSpace(got))
	}
	return err
}

// lab is a network with an echo program in each host.
func lab(t *testing.T, hosts ...string) *Lab {
	t.Helper()
	l, err := New(hosts...)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		address, wrap := l.Place(h)
		words := append(wrap, self, "echo", address+":7")
		c := exec.Command(words[0], words[1:]...)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
			t.Fatalf("%s says %q (%v)", h, line, err)
		}
	}
	return l
}

func connect(t *testing.T, l *Lab, host string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", l.Address(host)+":7", 10*brief)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := exchange(conn, "first"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// silent expects that nothing came back: no error but that of our clock.
func silent(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, os.ErrDeadlineExceeded) && (err == nil || !strings.Contains(err.Error(), "timeout")) {
		t.Errorf("%s: %v; want silence", what, err)
	}
}

func TestCutHost(t *testing.T) {
	l := lab(t, "a", "b")
	conn := connect(t, l, "a")
	if err := l.Cut("a"); err != nil {
		t.Fatal(err)
	}
	silent(t, "an open connection", exchange(conn, "second"))
	silent(t, "a new connection", call(l.Address("a")+":7"))
	other := connect(t, l, "b")
	silent(t, "b to a", exchange(other, "call "+l.Address("a")+":7"))
	address, wrap := l.Place("a")
	if out, err := exec.Command(wrap[0], append(wrap[1:], "ip", "-o", "link", "show", "eth0")...).Output(); err != nil || !strings.Contains(string(out), "LOWER_UP") {
		t.Errorf("the host sees its cable pulled: %s (%v)", out, err)
	}
	if err := l.Heal("a"); err != nil {
		t.Fatal(err)
	}
	if err := call(address + ":7"); err != nil {
		t.Errorf("after Heal: %v", err)
	}
	// The old connection was never ended. What was sent into the dark arrives
	// late, by the kernel's repetition, before what is sent now.
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != "second\n" {
		t.Errorf("the old connection after Heal: %q, %v", got, err)
	}
}

func TestCutBetweenAndOneWay(t *testing.T) {
	l := lab(t, "a", "b", "c")
	fromB := connect(t, l, "b")
	toA := "call " + l.Address("a") + ":7"
	for _, cut := range []func() error{
		func() error { return l.CutBetween("a", "b") },
		func() error { return l.CutOneWay("a", "b") },
		func() error { return l.CutOneWay("b", "a") },
	} {
		if err := cut(); err != nil {
			t.Fatal(err)
		}
		silent(t, fmt.Sprint(l.Cuts()), exchange(fromB, toA))
		for _, host := range []string{"a", "c"} {
			if err := call(l.Address(host) + ":7"); err != nil {
				t.Errorf("hub to %s: %v", host, err)
			}
		}
		if err := l.HealBetween("a", "b"); err != nil {
			t.Fatal(err)
		}
		if err := exchange(fromB, toA); err == nil || err.Error() != "<nil>" {
			t.Errorf("after HealBetween: %v", err)
		}
	}
	conn := connect(t, l, "a")
	if err := l.CutOneWay("a", Hub); err != nil {
		t.Fatal(err)
	}
	silent(t, "a to hub", exchange(conn, "second"))
	if err := l.HealAll(); err != nil || len(l.Cuts()) > 0 {
		t.Errorf("HealAll: %v, %v", err, l.Cuts())
	}
	if err := call(l.Address("a") + ":7"); err != nil {
		t.Error(err)
	}
}

func TestNamesAreChecked(t *testing.T) {
	l := lab(t, "a")
	for _, names := range [][]string{{"x", "x"}, {Hub}, {""}, {"much-too-long"}, {"x y"}, {"second"}} {
		if other, err := New(names...); err == nil {
			t.Errorf("New(%q) made one", names)
			_ = other.Close()
		}
	}
	if err := call(l.Address("a") + ":7"); err != nil {
		t.Errorf("the first network after that: %v", err)
	}
	for what, err := range map[string]error{
		"Cut": l.Cut("z"), "Heal": l.Heal(Hub), "CutOneWay from": l.CutOneWay("z", "a"), "CutOneWay to": l.CutOneWay("a", "z"),
	} {
		if err == nil {
			t.Errorf("%s of an unknown host did something", what)
		}
	}
	if address, wrap := l.Place("z"); address != "" || wrap != nil || l.Address("z") != "" {
		t.Error("an unknown host has a place")
	}
}

func TestNothingIsLeftAndItCanBeMadeAgain(t *testing.T) {
	lab(t, "a").Close()
	if out, err := exec.Command("ip", "-o", "link").Output(); err != nil || strings.Contains(string(out), hubLink) {
		t.Errorf("left: %s (%v)", out, err)
	}
	l := lab(t, "a", "b")
	if err := call(l.Address("b") + ":7"); err != nil {
		t.Error(err)
	}
}
