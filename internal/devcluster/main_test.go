package devcluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/logpb"
)

// TestMain lets the test binary stand for orrery in the processes that the
// tests start.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[2] == "--config" {
		os.Exit(act(Kind(os.Args[1]), os.Args[3]))
	}
	if len(os.Args) == 3 && os.Args[1] == "start-and-wait" {
		os.Exit(startAndWait(os.Args[2]))
	}
	os.Exit(m.Run())
}

// act is a fake orrery.
func act(kind Kind, config string) int {
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "ORRERY_") {
			fmt.Println("leaked:", variable)
		}
	}
	marker := filepath.Join(filepath.Dir(config), "clash")
	if _, err := os.Stat(marker); err == nil {
		_ = os.Remove(marker)
		awaitFile(filepath.Join(filepath.Dir(config), "..", "c1", "data", "founded"))
		fmt.Println("listen: address already in use")
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	address, err := serve(kind, config)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("started", kind, address)
	<-ctx.Done()
	if _, err := os.Stat(filepath.Join(filepath.Dir(config), "stubborn")); err == nil {
		select {}
	}
	fmt.Println("ended")
	return 0
}

// serve answers as a cluster that is ready; a worker only accepts connections.
func serve(kind Kind, config string) (address configs.Address, err error) {
	server := grpc.NewServer()
	if kind == Controller {
		c, err := configs.LoadController(config, nil)
		if err != nil {
			return "", err
		}
		address = c.Listen.Control
		if err := found(c); err != nil {
			return "", err
		}
		controlpb.RegisterControlServer(server, fakeControl{replicas: len(c.Cluster.Controllers)})
	} else {
		w, err := configs.LoadWorker(config, nil)
		if err != nil {
			return "", err
		}
		address = w.Listen.Session
	}
	l, err := net.Listen("tcp", string(address))
	if err != nil {
		return "", err
	}
	go server.Serve(l)
	return address, nil
}

// found leaves in a controller's data what ties it to its address.
func found(c *configs.Controller) error {
	if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(c.DataDir, "founded"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, c.Listen.Raft)
	return err
}

// awaitFile waits until a file is there, but not for ever.
func awaitFile(path string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
}

type fakeControl struct {
	controlpb.UnimplementedControlServer
	replicas int
}

func (f fakeControl) ClusterStatus(context.Context, *controlpb.ClusterStatusRequest) (*controlpb.ClusterStatusResponse, error) {
	status := &controlpb.ClusterStatusResponse{Leader: "c1"}
	for range f.replicas {
		status.Replicas = append(status.Replicas, &controlpb.Replica{Voter: true})
	}
	return status, nil
}

func (f fakeControl) ListWorkers(context.Context, *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	answer := &controlpb.ListWorkersResponse{}
	for _, name := range []string{"w1", "w2"} {
		answer.Workers = append(answer.Workers, &controlpb.WorkerInfo{
			Worker: &logpb.Worker{Name: name}, Live: &controlpb.WorkerLive{Connected: true},
		})
	}
	return answer, nil
}

// startAndWait starts a process and waits to be killed.
func startAndWait(dir string) int {
	p, err := one(dir)
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(p.Addresses["session"])
	select {}
}

// one makes a worker in dir, without starting it.
func one(dir string) (*Process, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: Options{Binary: binary, Dir: dir, ModelDir: dir}.withDefaults()}
	members, err := plan(c.options)
	if err != nil {
		return nil, err
	}
	m := members[len(members)-1]
	p := newProcess(c.options, m)
	if err := os.MkdirAll(filepath.Dir(p.Config), 0o755); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.Config, []byte(m.config.String()), 0o644)
}
