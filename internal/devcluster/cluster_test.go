package devcluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orrery-project/orrery/configs"
)

func TestConfigurationsAreValid(t *testing.T) {
	members, err := plan(Options{
		Dir: "/tmp/it's here", ModelDir: "/models: mine", Engines: []string{"gomlx", "emulated"},
		ControllerKeys: map[string]string{"startup.load_idle": "2s", "raft.leader_lease": "100ms", "listen.http": "127.0.0.1:9"},
		WorkerKeys:     map[string]string{"engines.emulated.jitter": "0.1", "labels": "{zone: a}", "log.level": "debug"},
		Controllers:    3, Workers: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(members) != 5 {
		t.Fatalf("%d members", len(members))
	}
	c, err := configs.ParseController("c2", []byte(members[1].config.String()), nil)
	if err != nil {
		t.Fatalf("%v in\n%v", err, members[1].config)
	}
	if c.Name != "c2" || c.DataDir != "/tmp/it's here/c2/data" || len(c.Cluster.Controllers) != 3 ||
		c.Startup.LoadIdle != 2*time.Second || c.Raft.LeaderLease != 100*time.Millisecond || c.Listen.HTTP != "127.0.0.1:9" {
		t.Errorf("controller %+v", c)
	}
	w, err := configs.ParseWorker("w2", []byte(members[4].config.String()), nil)
	if err != nil {
		t.Fatalf("%v in\n%v", err, members[4].config)
	}
	if w.Name != "w2" || w.ModelDir != "/models: mine" || len(w.Cluster.GossipSeeds) != 3 || w.Engines.Emulated.Jitter != 0.1 ||
		!slices.Equal(w.Devices[0].Engines, []string{"gomlx", "emulated"}) || w.Labels["zone"] != "a" || w.Log.Level != "debug" {
		t.Errorf("worker %+v", w)
	}
	seen := map[string]bool{}
	for _, m := range members {
		for listener, address := range m.addresses {
			if seen[address] || address == "" {
				t.Errorf("%s of %s has %q, which is empty or taken", listener, m.name, address)
			}
			seen[address] = true
		}
	}
}

func TestProcessesAtAddressesOfTheirOwn(t *testing.T) {
	o := Options{
		Dir: "/d", ModelDir: "/m", Controllers: 3, Workers: 2, Engines: []string{"emulated"}, Binary: "orrery",
		Host: func(name string) (string, []string) {
			return map[string]string{"c1": "10.0.0.1", "c2": "10.0.0.2", "c3": "10.0.0.3", "w1": "10.0.0.4", "w2": "10.0.0.5"}[name],
				[]string{"in", name}
		},
		DataDir: func(name string) string { return "/slow/" + name },
	}
	members, err := plan(o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := configs.ParseController("c2", []byte(members[1].config.String()), nil)
	if err != nil {
		t.Fatalf("%v in\n%v", err, members[1].config)
	}
	if c.DataDir != "/slow/c2" || c.Cluster.Controllers[2] != configs.Address(members[2].addresses["peer"]) ||
		!strings.HasPrefix(string(c.Listen.Raft), "10.0.0.2:") {
		t.Errorf("controller %+v", c)
	}
	if _, err := configs.ParseWorker("w2", []byte(members[4].config.String()), nil); err != nil {
		t.Errorf("%v in\n%v", err, members[4].config)
	}
	if got := strings.Join(newProcess(o, members[1]).command, " "); got != "in c2 orrery controller --config /d/c2/controller.yaml" {
		t.Errorf("command %q", got)
	}
	o.Workers = 3
	if _, err := plan(o); err == nil || !strings.Contains(err.Error(), "w3") {
		t.Errorf("a process without an address: %v", err)
	}
}

func TestStartAndStop(t *testing.T) {
	t.Setenv("ORRERY_NAME", "mine")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Start(t.Context(), Options{Binary: binary, ModelDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.All() {
		if tail := p.LogTail(10); !strings.HasPrefix(tail, "started") {
			t.Errorf("log of %s: %s", p.Name, tail)
		}
	}
	if got := c.Addresses("control"); len(got) != 3 || got[1] != c.Controller("c2").Addresses["control"] || c.Controller("c4") != nil {
		t.Errorf("control addresses %v", got)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	for _, p := range c.All() {
		if !p.hasExited() || p.Wait() != nil {
			t.Errorf("%s: %v", p.Name, p.Wait())
		}
	}
	if _, err := os.Stat(c.Dir()); !os.IsNotExist(err) {
		t.Errorf("the folder %s is still there", c.Dir())
	}
}

func TestStartChoosesOtherPortsAfterAClash(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "c2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c2", "clash"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(dir, "c3", "data", "older")
	if err := errors.Join(os.MkdirAll(filepath.Dir(older), 0o755), os.WriteFile(older, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	binary, _ := os.Executable()
	var log bytes.Buffer
	c, err := Start(t.Context(), Options{Binary: binary, ModelDir: dir, Dir: dir, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if !strings.Contains(log.String(), "port was taken") {
		t.Errorf("log: %s", log.String())
	}
	// A cluster that was founded at the ports that were given up would never have a
	// leader at the others.
	founded, err := os.ReadFile(filepath.Join(dir, "c1", "data", "founded"))
	if want := c.Controller("c1").Addresses["raft"] + "\n"; err != nil || string(founded) != want {
		t.Errorf("the data of c1 is that of %q, and its address is %q (%v)", founded, want, err)
	}
	if _, err := os.Stat(older); err != nil {
		t.Errorf("data that was there before is gone: %v", err)
	}
}

func TestStartTellsWhyAProcessExited(t *testing.T) {
	binary, _ := os.Executable()
	_, err := Start(t.Context(), Options{Binary: binary, ModelDir: "/m", ControllerKeys: map[string]string{"raft.speed": "9"}})
	if err == nil || !strings.Contains(err.Error(), "raft.speed") {
		t.Fatalf("%v; want the log, which names the key", err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	binary, _ := os.Executable()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := Start(ctx, Options{Binary: binary, ModelDir: "/m", Workers: 3}) // the fake knows two
	if err == nil || !strings.Contains(err.Error(), "w3 has no session") {
		t.Fatal(err)
	}
}

func started(t *testing.T) *Process {
	p, err := one(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	dial(t, p.Addresses["session"])
	return p
}

// dial connects to a fake worker, once it listens.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestProcess(t *testing.T) {
	p := started(t)
	if err := p.Start(); err == nil {
		t.Error("it was started twice")
	}
	first := p.PID()
	if err := p.Pause(); err != nil {
		t.Error(err)
	}
	if err := p.Resume(); err != nil {
		t.Error(err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if exit, ok := p.Wait().(*exec.ExitError); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("after Kill: %v", p.Wait())
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	dial(t, p.Addresses["session"])
	if p.PID() == first {
		t.Error("it has the same process id after a restart")
	}
	// A paused process ends too.
	if err := p.Pause(); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil || p.Wait() != nil {
		t.Errorf("stop: %v, %v", err, p.Wait())
	}
	if got := p.LogTail(2); !strings.HasPrefix(got, "started workerd") || !strings.HasSuffix(got, "ended") {
		t.Errorf("log: %s", got)
	}
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	p := started(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.Config), "stubborn"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err == nil || !p.hasExited() {
		t.Errorf("stop: %v", err)
	}
}

func TestProcessesDieWithTheirStarter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this system has no such thing")
	}
	binary, _ := os.Executable()
	starter := exec.Command(binary, "start-and-wait", t.TempDir())
	out, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, strings.TrimSpace(address))
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = starter.Wait()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			if os.IsTimeout(err) {
				t.Error("the process outlived its starter")
			}
			return
		}
	}
}

func TestManyWorkersOfOneProcess(t *testing.T) {
	o := Options{Dir: "/d", Binary: "orrery", Controllers: 1, Workers: 2, PerProcess: 3}
	members, err := plan(o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	c, w := newProcess(o, members[0]), newProcess(o, members[2])
	if got := strings.Join(w.command, " "); got != "orrery workerd --config /d/w2/workerd.yaml --count 3" || !slices.Equal(w.Members, []string{"w2-1", "w2-2", "w2-3"}) {
		t.Errorf("command %q of %q", got, w.Members)
	}
	if got := strings.Join(c.command, " "); got != "orrery controller --config /d/c1/controller.yaml" || !slices.Equal(c.Members, []string{"c1"}) {
		t.Errorf("command %q of %q", got, c.Members)
	}
}

func TestWorkersThatAreStartedLater(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Nobody has said that w3 has a session, and it is waited for once it runs.
	c, err := Start(t.Context(), Options{Binary: binary, ModelDir: t.TempDir(), Workers: 3, WorkersLater: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	for _, w := range c.Workers {
		if w.PID() != 0 {
			t.Errorf("%s was started", w.Name)
		}
	}
	if err := c.Worker("w3").Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "w3") {
		t.Errorf("w3 has no session, and it is ready: %v", err)
	}
}
