package fsm

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/orrery-project/orrery/proto/logpb"
)

// large has 100 workers that hold 1,000 models.
func large(b *testing.B) *log {
	l := newCluster(b)
	for w := range 100 {
		l.ok(register(fmt.Sprintf("w%03d", w), "i1"))
	}
	l.ok(&logpb.LoadModel{Name: "m", Source: "a", Instances: 1000})
	for w := range 100 {
		l.ok(holdings(w, 1000))
	}
	l.cmds = nil
	return l
}

func holdings(w, count int) *logpb.UpdateHoldings {
	c := &logpb.UpdateHoldings{}
	for id := range count {
		c.Updates = append(c.Updates, loaded(uint64(id+1), fmt.Sprintf("w%03d", w), "i1", digestA))
	}
	return c
}

func BenchmarkApply(b *testing.B) {
	for name, body := range map[string]proto.Message{
		"register":     register("w050", "i1"),
		"holdings=100": holdings(50, 100),
		"load":         &logpb.LoadModel{Name: "m", Source: "a", Instances: 10},
		"digest":       &logpb.TakeDigest{},
	} {
		b.Run(name, func(b *testing.B) {
			l := large(b)
			r := &Replica{state: l.state}
			b.ReportAllocs()
			for b.Loop() {
				cmd := l.command(body)
				l.index++
				if err, ok := r.Apply(entry(b, l.index, cmd)).(error); ok {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	l := large(b)
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			l.state.Snapshot()
		}
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			b.SetBytes(int64(len(encoded(b, l.state.Snapshot()))))
		}
	})
}

func BenchmarkPending(b *testing.B) {
	l := large(b)
	for b.Loop() {
		l.state.Pending()
	}
}
