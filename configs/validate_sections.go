package configs

import (
	"fmt"
	"slices"
	"time"
)

func (k *checker) cluster(c *Controller) {
	const path = "cluster.controllers"
	controllers, own := c.Cluster.Controllers, c.Advertised().Peer
	k.dialable(path, controllers, "127.0.0.1:8011")
	k.dialable("cluster.gossip_seeds", c.Cluster.GossipSeeds, "127.0.0.1:7946")
	for i, address := range controllers {
		if slices.Contains(controllers[:i], address) {
			k.report(fmt.Sprintf("%s[%d]", path, i), "list each controller once", "%s is listed twice", address)
		}
	}
	n := len(controllers)
	switch {
	case n == 0:
		k.report(path, "list the peer addresses of all controllers; for a single one, [127.0.0.1:8011]", "is required")
		return
	case n > maxControllers:
		k.report(path, fmt.Sprintf("list 1, 3, 5 or %d", maxControllers), "%d are too many controllers", n)
	}
	// An own address that is wrong in itself is reported where it stands.
	if own.dialFault("") == (fault{}) && !slices.Contains(controllers, own) {
		k.report(path, "add it, or set advertise.peer to the entry that stands for this controller",
			"the peer address of this controller, %s, is not among them", own)
	}
}

// raft checks what the Raft library would refuse only once it opens.
func (k *checker) raft(r Raft) {
	atLeast(k, "raft.heartbeat_timeout", r.HeartbeatTimeout, leastRaftTime)
	atLeast(k, "raft.election_timeout", r.ElectionTimeout, leastRaftTime)
	atLeast(k, "raft.leader_lease", r.LeaderLease, leastRaftTime)
	atLeast(k, "raft.commit_timeout", r.CommitTimeout, leastCommitTime)
	atLeast(k, "raft.snapshot_interval", r.SnapshotInterval, leastRaftTime)
	atLeast(k, "raft.snapshot_threshold", r.SnapshotThreshold, 1)
	atLeast(k, "raft.digest_interval", r.DigestInterval, time.Second)
	atLeast(k, "raft.leader_write_limit", r.LeaderWriteLimit, leastWriteLimit)
	if r.FollowerWriteLimit < r.LeaderWriteLimit {
		k.report("raft.follower_write_limit", fmt.Sprintf("write %v or more, or lower raft.leader_write_limit", r.LeaderWriteLimit),
			"%v is shorter than raft.leader_write_limit, %v", r.FollowerWriteLimit, r.LeaderWriteLimit)
	}
	if r.LeaderLease > r.HeartbeatTimeout {
		k.report("raft.leader_lease", fmt.Sprintf("write %v or less, or raise raft.heartbeat_timeout", r.HeartbeatTimeout),
			"%v is longer than raft.heartbeat_timeout, %v", r.LeaderLease, r.HeartbeatTimeout)
	}
	if r.ElectionTimeout < r.HeartbeatTimeout {
		k.report("raft.election_timeout", fmt.Sprintf("write %v or more, or lower raft.heartbeat_timeout", r.HeartbeatTimeout),
			"%v is shorter than raft.heartbeat_timeout, %v", r.ElectionTimeout, r.HeartbeatTimeout)
	}
}

func (k *checker) startup(s Startup) {
	atLeast(k, "startup.load_idle", s.LoadIdle, time.Millisecond)
	atLeast(k, "startup.infer_buffer", s.InferBuffer, 0)
	atLeast(k, "startup.loads_per_worker", s.LoadsPerWorker, 1)
	if !(s.ProfileShare > 0 && s.ProfileShare <= 1) {
		k.report("startup.profile_share", "write a number above 0 and up to 1, for example 0.1", "%v is not a share of a device's time", s.ProfileShare)
	}
	atLeast(k, "startup.profile_refresh", s.ProfileRefresh, 0)
}

func (k *checker) inference(i Inference) {
	atLeast(k, "inference.degraded_after", i.DegradedAfter, 0)
	atLeast(k, "inference.degraded_for", i.DegradedFor, 0)
	atLeast(k, "inference.default_timeout", i.DefaultTimeout, time.Millisecond)
	within(k, "inference.max_message", i.MaxMessage, KiB, maxMessage)
	atLeast(k, "inference.held_requests", i.HeldRequests, 1)
	atLeast(k, "inference.link_requests", i.LinkRequests, 1)
	if i.MaxMessage <= maxMessage {
		k.holdsMessage("inference.held_bytes", i.HeldBytes, i.MaxMessage)
		k.holdsMessage("inference.link_bytes", i.LinkBytes, i.MaxMessage)
	}
}

// holdsMessage refuses a bound that the largest message could never pass.
func (k *checker) holdsMessage(path string, bound, message Bytes) {
	if bound < message {
		k.report(path, fmt.Sprintf("write %v or more, or lower inference.max_message", message),
			"%v is less than inference.max_message, %v", bound, message)
	}
}

func (k *checker) workers(w Workers) {
	within(k, "workers.heartbeat_interval", w.HeartbeatInterval, time.Millisecond, mostHeartbeat)
	atLeast(k, "workers.connect_timeout", w.ConnectTimeout, time.Millisecond)
	within(k, "workers.heartbeat_misses", w.HeartbeatMisses, 1, 1000)
	if w.LostAfter > w.ForgetAfter {
		k.report("workers.lost_after", fmt.Sprintf("write %v or less", w.ForgetAfter), "%v is longer than workers.forget_after, %v", w.LostAfter, w.ForgetAfter)
	}
	atLeast(k, "workers.lost_after", w.LostAfter, time.Second)
	atLeast(k, "workers.dead_after", w.DeadAfter, 100*time.Millisecond)
	if w.DeadAfter > w.LostAfter && w.LostAfter >= time.Second {
		k.report("workers.dead_after", fmt.Sprintf("write %v or less, or raise workers.lost_after", w.LostAfter),
			"%v is longer than workers.lost_after, %v", w.DeadAfter, w.LostAfter)
	}
	atLeast(k, "workers.result_grace", w.ResultGrace, 10*time.Millisecond)
	atLeast(k, "workers.compare_interval", w.CompareInterval, 100*time.Millisecond)
	// Divided rather than multiplied: the product may overflow.
	if w.HeartbeatMisses > 0 && w.ForgetAfter/time.Duration(w.HeartbeatMisses) <= w.HeartbeatInterval {
		k.report("workers.forget_after", "write a longer time, usually hours",
			"%v is not longer than the %d missed heartbeats of %v after which a worker is lost",
			w.ForgetAfter, w.HeartbeatMisses, w.HeartbeatInterval)
	}
}

func (k *checker) device(path string, d Device) {
	k.name(path+".kind", d.Kind, "cpu")
	atLeast(k, path+".page_size", d.PageSize, leastPage)
	if d.WeightsCache < max(d.PageSize, leastPage) {
		k.report(path+".weights_cache", fmt.Sprintf("write %v or more, or lower page_size", max(d.PageSize, leastPage)),
			"%v holds not even one page of %v", d.WeightsCache, max(d.PageSize, leastPage))
	}
	if len(d.Engines) == 0 {
		k.report(path+".engines", "list at least one of gomlx, emulated", "is empty")
	}
	for i, engine := range d.Engines {
		entry := fmt.Sprintf("%s.engines[%d]", path, i)
		k.oneOf(entry, engine, "gomlx", "emulated")
		if slices.Contains(d.Engines[:i], engine) {
			k.report(entry, "list each engine once", "%q is listed twice", engine)
		}
	}
}

func (k *checker) batchRows(rows []int) {
	const path = "engines.gomlx.batch_rows"
	if !slices.Contains(rows, 1) {
		k.report(path, "begin the list with 1, for example [1, 2, 4, 8]", "%v has no 1, so a single row would have to be padded", rows)
	}
	for i, n := range rows {
		entry := fmt.Sprintf("%s[%d]", path, i)
		within(k, entry, n, 1, maxBatchRows)
		if i > 0 && n <= rows[i-1] {
			k.report(entry, "list each once, the smallest first", "%d does not ascend from %d", n, rows[i-1])
		}
	}
}
