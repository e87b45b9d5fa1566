package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orrery-project/orrery/internal/devcluster"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/exchangepb"
	"github.com/orrery-project/orrery/proto/inferencepb"
	"github.com/orrery-project/orrery/proto/logpb"
	"github.com/orrery-project/orrery/proto/peerpb"
	"github.com/orrery-project/orrery/proto/sessionpb"
)

// seedVariable makes a run repeat the random choices of another one.
const seedVariable = "E2E_SEED"

// random is a source of random choices, whose seed is printed.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv(seedVariable); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("random choices by %s=%d", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// junk is something that no listener expects.
type junk struct {
	name  string
	bytes []byte
}

// http2Preface is what a connection of gRPC begins with.
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame is an HTTP/2 frame that may lie about its length.
func frame(length int, kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// noise is random bytes.
func noise(choose *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(choose.Uint32())
	}
	return b
}

// allJunk is one of each kind of junk.
func allJunk(choose *rand.Rand) []junk {
	settings := frame(0, 4, 0, 0, nil)
	http2 := func(frames ...[]byte) []byte {
		return append([]byte(http2Preface), bytes.Join(append([][]byte{settings}, frames...), nil)...)
	}
	all := []junk{
		{"nothing", nil},
		{"one byte", noise(choose, 1)},
		{"noise", noise(choose, 1+choose.IntN(4096))},
		{"much noise", noise(choose, 1<<20)},
		{"half a preface", []byte(http2Preface[:1+choose.IntN(len(http2Preface)-2)])},
		{"preface and noise", append([]byte(http2Preface), noise(choose, 1000)...)},
		{"frame that claims 16 MiB", http2(frame(1<<24-1, 0, 0, 1, noise(choose, 100)))},
		{"headers of noise", http2(frame(200, 1, 4, 1, noise(choose, 200)))},
		{"data on no stream", http2(frame(100, 0, 0, 0, noise(choose, 100)))},
		{"window of nothing", http2(frame(4, 8, 0, 0, make([]byte, 4)))},
		{"endless headers", http2(frame(10, 1, 0, 1, noise(choose, 10)), bytes.Repeat(frame(10, 9, 0, 1, noise(choose, 10)), 1000))},
		{"thousand resets", http2(bytes.Repeat(frame(4, 3, 0, 1, make([]byte, 4)), 1000))},
		{"TLS", append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise(choose, 500)...)},
		{"HTTP/1 of no kind", []byte("GET /\x00 HTTP/9.9\r\nHost: \xff\r\n\r\n")},
		{"HTTP/1 that does not end", []byte("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\nabc")},
		{"HTTP/1 with large headers", []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 200_000))},
	}
	// raft: a kind of request, then MessagePack that claims to be huge, or says
	// nothing.
	for kind := range byte(5) {
		for _, claim := range [][]byte{
			{0x80}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0x7f, 0xff, 0xff, 0xff},
			append([]byte{0x81, 0xa7}, "Entries\xdd\xff\xff\xff\xff"...),
			append([]byte{0x81, 0xa4}, "Size\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"...),
			append([]byte{0x82, 0xa4}, "Term\xc0\xa9Candidate\xc6\x40\x00\x00\x00"...),
		} {
			all = append(all, junk{fmt.Sprintf("raft request %d that claims much", kind), slices.Concat([]byte{kind}, claim)})
		}
	}
	// gossip: a kind of message, then claims of the same sort.
	for kind := range byte(16) {
		claim := append([]byte{0x83, 0xa5}, "Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\xce\x7f\xff\xff\xff\xa4Join\xc3"...)
		all = append(all, junk{fmt.Sprintf("gossip message %d", kind), slices.Concat([]byte{kind}, claim)})
		all = append(all, junk{fmt.Sprintf("gossip message %d of noise", kind), slices.Concat([]byte{kind}, noise(choose, 300))})
	}
	return all
}

// junkEverywhere sends each kind of junk to each listener of each process. Every
// second connection stays open until the test ends, and of the others every second
// one is reset.
func junkEverywhere(t *testing.T, c *cluster) {
	choose := random(t)
	sent := map[string]int{}
	var open []net.Conn
	t.Cleanup(func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	for _, p := range c.All() {
		for listener, address := range p.Addresses {
			for i, j := range allJunk(choose) {
				conn, err := net.DialTimeout("tcp", address, callTimeout)
				if err != nil {
					t.Errorf("%s of %s: %v", listener, p.Name, err)
					continue
				}
				sent[listener]++
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_, _ = conn.Write(j.bytes) // the listener may have had enough
				if i%2 == 0 {
					open = append(open, conn)
					continue
				}
				if i%4 == 1 {
					_ = conn.(*net.TCPConn).SetLinger(0)
				}
				_ = conn.Close()
			}
			if listener == "gossip" {
				junkPackets(t, choose, address)
			}
		}
	}
	t.Logf("junk sent, by listener: %v", sent)
}

// junkPackets sends junk by UDP.
func junkPackets(t *testing.T, choose *rand.Rand, address string) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	for _, j := range allJunk(choose) {
		_, _ = conn.Write(j.bytes[:min(len(j.bytes), 1400)])
	}
}

// nonsense speaks the right protocols and says what makes no sense in them.
func nonsense(t *testing.T, c *cluster) {
	choose := random(t)
	answer, err := clientOf(t, c.Controllers...).ListModels(within(t, callTimeout), &controlpb.ListModelsRequest{Name: mlp})
	if err != nil {
		t.Fatal(err)
	}
	model := answer.Models[0].Model
	for _, p := range c.Controllers {
		for _, listener := range []string{"inference", "control", "peer"} {
			err := dial(t, p, listener).Invoke(within(t, callTimeout), "/orrery.Nothing/Nothing", &inferencepb.ServerLiveRequest{}, &inferencepb.ServerLiveResponse{})
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("an unknown method on %s of %s: %v", listener, p.Name, err)
			}
		}
		for _, command := range [][]byte{noise(choose, 100), {}} {
			_, err := peerpb.NewPeerClient(dial(t, p, "peer")).Propose(within(t, callTimeout), &peerpb.ProposeRequest{Command: command})
			if err == nil {
				t.Errorf("%s took %d bytes for a command", p.Name, len(command))
			}
		}
		for _, listener := range []string{"inference", "peer"} {
			nonsenseStreams(t, choose, p, listener, model)
		}
	}
	for _, w := range c.Workers {
		conn := dial(t, w, "session")
		control, err := sessionpb.NewSessionClient(conn).Control(within(t, callTimeout))
		if err != nil {
			t.Fatal(err)
		}
		_ = control.Send(&sessionpb.LeaderMessage{Report: true, Actions: []*sessionpb.Action{{}, {ModelId: 1 << 63}}})
		if _, err := control.Recv(); err == nil {
			t.Errorf("%s talks to a leader that did not say who it is", w.Name)
		}
		data, err := sessionpb.NewSessionClient(conn).Data(within(t, callTimeout))
		if err != nil {
			t.Fatal(err)
		}
		_ = data.Send(&sessionpb.LeaderData{Envelopes: []*exchangepb.Envelope{{}, {RequestId: "x", Payload: noise(choose, 100)}}})
		if _, err := data.Recv(); err == nil {
			t.Errorf("%s takes data from a leader that did not say who it is", w.Name)
		}
	}
}

// nonsenseStreams sends nonsense on the streams that carry requests: envelopes
// that hold nothing, or noise, or the same id twice, cancels of what was never
// sent, and a frame that is too large.
func nonsenseStreams(t *testing.T, choose *rand.Rand, p *devcluster.Process, listener string, model *logpb.Model) {
	t.Helper()
	client := exchangepb.NewExchangeClient(dial(t, p, listener))
	hello := &exchangepb.Hello{LinkId: fmt.Sprintf("nonsense %d", choose.Uint64()), From: "\n"}
	control, err := client.Control(within(t, callTimeout))
	if err != nil {
		t.Fatal(err)
	}
	_ = control.Send(&exchangepb.ControlFrame{Hello: hello, Cancels: []*exchangepb.Cancel{{}, {RequestId: "never", Attempt: 7}}, Closing: true,
		Credit: &exchangepb.Credit{Requests: 1 << 31, Bytes: 1 << 63}})
	if _, err := control.Recv(); err != nil {
		t.Logf("%s of %s: %v", listener, p.Name, err)
	}
	data, err := client.Data(within(t, callTimeout))
	if err != nil {
		t.Fatal(err)
	}
	_ = data.Send(&exchangepb.DataFrame{Hello: hello, Envelopes: []*exchangepb.Envelope{
		{}, {RequestId: "a"}, {RequestId: "a"}, {RequestId: "b", Payload: noise(choose, 1000)},
		{RequestId: "c", TimeLeftNs: -1, Header: &exchangepb.Header{ModelName: mlp, ModelId: 1 << 63, Rows: 1 << 31}},
		{RequestId: "d", Answer: &exchangepb.Answer{Code: 99}},
		// As a follower would say it, of a request that nobody has checked.
		{RequestId: "e", Payload: noise(choose, 1000), Header: checked(model, 1)},
		{RequestId: "f", Header: checked(model, 16)},
		{RequestId: "g", Header: checked(model, 0)},
	}})
	answer, err := data.Recv()
	t.Logf("%s of %s answers nonsense by %d envelopes, %v", listener, p.Name, len(answer.GetEnvelopes()), err)
	_ = data.Send(&exchangepb.DataFrame{Envelopes: []*exchangepb.Envelope{{RequestId: "large", Payload: make([]byte, 80<<20)}}})
	for err == nil {
		_, err = data.Recv()
	}
	t.Logf("%s of %s ends by %v", listener, p.Name, err)

	// Data of a link that has no control, and hellos that say nothing.
	for _, h := range []*exchangepb.Hello{nil, {}, {LinkId: "alone, without control"}} {
		data, err := client.Data(within(t, callTimeout))
		if err != nil {
			t.Fatal(err)
		}
		_ = data.Send(&exchangepb.DataFrame{Hello: h, Envelopes: []*exchangepb.Envelope{{RequestId: "e"}}})
		_ = data.CloseSend()
	}
}

// checked is the header of a request for a model that was found to be good.
func checked(m *logpb.Model, rows uint32) *exchangepb.Header {
	return &exchangepb.Header{ModelName: m.Name, ModelId: m.Id, Digest: m.Info.Digest, Rows: rows}
}

// checkMemory expects that no process has ever used more memory than a
// gigabyte. Where the system does not tell, it is not checked.
func checkMemory(t *testing.T, c *cluster) {
	const most = 1 << 30
	for _, p := range c.All() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
		if err != nil {
			t.Log(err)
			return
		}
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		var kib int
		if _, err := fmt.Sscan(rest, &kib); err != nil || kib<<10 > most {
			t.Errorf("%s has used up to %d KiB of memory (%v)", p.Name, kib, err)
		}
		t.Logf("%s has used up to %d MiB of memory", p.Name, kib>>10)
	}
}
