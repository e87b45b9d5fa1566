package workerd

import (
	"maps"
	"slices"

	"github.com/orrery-project/orrery/proto/sessionpb"
)

// pong answers a ping with what changes all the time; what seldom does is said only when it has. The lock is held.
func (w *Worker) pong(s *session, p *sessionpb.Ping, now int64) *sessionpb.Pong {
	answer := &sessionpb.Pong{
		Sequence: p.GetSequence(), LeaderNs: p.GetLeaderNs(), WorkerNs: now, Queued: w.busy(), FreePages: w.freePages(),
	}
	if s.told == nil {
		s.told = make([]uint64, len(w.devices))
	}
	for i, d := range w.devices {
		b := d.beat(s, now)
		if s.told[i] != d.moves {
			s.told[i] = d.moves
			b.ResidentChanged, b.Resident = true, slices.Sorted(maps.Keys(d.weights))
		}
		answer.Devices = append(answer.Devices, b)
	}
	return answer
}

// beat is what every heartbeat of a session says of the device. Ids of actions mean something in their own session only: of
// what else runs, for a leader before or without any, it says just the model. The lock is held.
func (d *device) beat(s *session, now int64) *sessionpb.DeviceBeat {
	b := &sessionpb.DeviceBeat{
		Index:     uint32(d.index),
		Queued:    uint32(d.inference.busy()),
		FreePages: uint32(d.cache.free),
	}
	if len(d.inference.running) > 0 {
		j := d.inference.running[0]
		b.ExecutingModel, b.ExecutingNs = j.action.GetModelId(), now-j.started
		if j.from == origin(s) {
			b.ExecutingAction = j.action.GetId()
		}
	}
	return b
}

// outstanding are the ids of a session's actions that wait or run, ascending. A job leaves its executor and is answered under
// one hold of the lock, so none is missing here whose result has not been sent. The lock is held.
func (w *Worker) outstanding(s *session) []uint64 {
	var ids []uint64
	for e := range w.executors() {
		for _, jobs := range [][]*job{e.queue.jobs, e.running} {
			for _, j := range jobs {
				if j.from == origin(s) {
					ids = append(ids, j.action.GetId())
				}
			}
		}
	}
	slices.Sort(ids)
	return ids
}
