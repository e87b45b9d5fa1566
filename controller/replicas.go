package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orrery-project/orrery/internal/errs"
	"github.com/orrery-project/orrery/internal/grpcerr"
	"github.com/orrery-project/orrery/proto/controlpb"
	"github.com/orrery-project/orrery/proto/peerpb"
)

// joinInterval is the pause between two looks at a replica that catches up.
const joinInterval = 200 * time.Millisecond

// JoinReplica takes a running replica in, and answers when it has its vote. A
// replica that is configured with the peer addresses of the cluster asks for
// this by itself; here an operator asks for one that is not.
func (s *controlService) JoinReplica(ctx context.Context, r *controlpb.JoinReplicaRequest) (*controlpb.JoinReplicaResponse, error) {
	for first := true; ; first = false {
		voter, id, err := s.c.joinOnce(ctx, r.PeerAddress)
		if err != nil && (first || !passing(err)) {
			return nil, grpcerr.Status(err)
		}
		if err == nil && voter {
			return &controlpb.JoinReplicaResponse{ReplicaId: id}, nil
		}
		if pause(ctx, joinInterval) != nil {
			return nil, grpcerr.Status(errs.Maybe(errs.DeadlinePassed,
				"the replica at %s has no vote yet: it may still be catching up; `orrery cluster status` shows it as a learner until then", r.PeerAddress))
		}
	}
}

// joinOnce brings the replica at a peer address one step further.
func (c *Controller) joinOnce(ctx context.Context, address string) (voter bool, id string, err error) {
	asking, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	who, err := c.peers.who(asking, address)
	if err != nil {
		return false, "", errs.New(errs.Precondition,
			"no controller answers at the peer address %s; start it first, and name its listen.peer", address)
	}
	if own := c.cluster().GetId(); who.ClusterId != "" && who.ClusterId != own {
		return false, "", errs.New(errs.Conflict, "the controller %s at %s belongs to the cluster %s, not to this one (%s)", who.Name, address, who.ClusterId, own)
	}
	w, err := c.waitForLeader(ctx)
	if err != nil {
		return false, "", err
	}
	answer, err := w.join(ctx, &peerpb.JoinRequest{
		ReplicaId: who.ReplicaId, RaftAddress: who.RaftAddress, AppliedIndex: who.AppliedIndex, Formed: who.Formed, SchemaVersion: who.SchemaVersion,
	})
	return answer.GetVoter(), who.ReplicaId, err
}

// RemoveReplica takes a replica out of the cluster.
func (s *controlService) RemoveReplica(ctx context.Context, r *controlpb.RemoveReplicaRequest) (*controlpb.RemoveReplicaResponse, error) {
	id, err := s.atLeader(ctx, r.Replica, func(w way, id string) error { return w.remove(ctx, id) })
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	return &controlpb.RemoveReplicaResponse{ReplicaId: id}, nil
}

// TransferLeadership hands leadership over, and answers when another replica
// leads.
func (s *controlService) TransferLeadership(ctx context.Context, r *controlpb.TransferLeadershipRequest) (*controlpb.TransferLeadershipResponse, error) {
	own := s.c.options.Consensus
	var before string
	handedOver := func(to string) bool {
		now, _ := own.Leader()
		return now != "" && (now == to || to == "" && now != before)
	}
	to, err := s.atLeader(ctx, r.Replica, func(w way, id string) error {
		if before == "" {
			before, _ = own.Leader()
		}
		err := w.transfer(ctx, id)
		if handedOver(id) {
			return nil // the link to the old leader ends with its leadership
		}
		return err
	})
	if err != nil {
		return nil, grpcerr.Status(err)
	}
	for {
		changed := own.LeaderChanged()
		if handedOver(to) {
			now, _ := own.Leader()
			return &controlpb.TransferLeadershipResponse{Leader: nameOf(now)}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, grpcerr.Status(errs.Maybe(errs.DeadlinePassed, "no other replica led when the call's time ran out; see `orrery cluster status`"))
		}
	}
}

// atLeader finds the replica of a name or id, if one is named, and has do done
// at the leader, again after a passing error.
func (s *controlService) atLeader(ctx context.Context, replica string, do func(w way, id string) error) (id string, err error) {
	for {
		if err := s.c.current(ctx); err != nil {
			return "", err
		}
		// Once: an attempt that was cut off may have removed it.
		if replica != "" && id == "" {
			if id, err = s.c.member(replica); err != nil {
				return "", err
			}
		}
		w, err := s.c.waitForLeader(ctx)
		if err != nil {
			return "", err
		}
		if err = do(w, id); err == nil || !passing(err) {
			return id, err
		}
		if err := pause(ctx, retryPause); err != nil {
			return "", errs.Maybe(errs.DeadlinePassed, "the leader did not answer in time; see `orrery cluster status`")
		}
	}
}

// member is the id of the one member of a name or id.
func (c *Controller) member(replica string) (string, error) {
	var ids, all []string
	for _, server := range c.options.Consensus.Servers() {
		all = append(all, server.ID)
		if server.ID == replica || nameOf(server.ID) == replica {
			ids = append(ids, server.ID)
		}
	}
	switch len(ids) {
	case 1:
		return ids[0], nil
	case 0:
		return "", errs.New(errs.Invalid, "%q is no replica of this cluster; it has %s", replica, strings.Join(all, ", "))
	}
	return "", errs.New(errs.Invalid, "%q may be any of %s; write the id", replica, strings.Join(ids, ", "))
}

// nameOf is the name in a replica's id.
func nameOf(id string) string {
	name, _, _ := cutLast(id, "-")
	return name
}

// cutLast cuts s at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// promotionLag is how many entries behind the commit index a replica may be
// when it gets a vote.
const promotionLag = 100

// holdMembership has the caller be the only one who changes the members, until
// freeMembership.
func (t *term) holdMembership(ctx context.Context) error {
	select {
	case t.membership <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.New(errs.DeadlinePassed, "another change of the members took too long")
	}
}

func (t *term) freeMembership() { <-t.membership }

// admit takes a replica in, first as a non-voter; once it has caught up it gets
// a vote. For a member that has moved it changes the address. A dead replica at
// its address, or of its name, is a disk that was lost, and is removed; a
// living one is a mistake of configuration.
func (t *term) admit(ctx context.Context, r *peerpb.JoinRequest) (voter bool, err error) {
	if err := t.holdMembership(ctx); err != nil {
		return false, err
	}
	defer t.freeMembership()
	own := t.c.options.Consensus
	servers := own.Servers()
	known := slices.IndexFunc(servers, func(s Server) bool { return s.ID == r.ReplicaId })
	switch {
	case known >= 0 && servers[known].Voter && servers[known].Address == r.RaftAddress:
		return true, nil
	case known < 0 && r.Formed:
		// An id is given once, with its data: a removed one does not come back,
		// since what it holds may have come apart from the cluster since.
		return false, errs.New(errs.Precondition,
			"replica %s was removed from this cluster, was never quite taken in, or belongs to another: stop it, empty its data_dir, and start it again to join as a new one", r.ReplicaId)
	case r.SchemaVersion < t.c.cluster().GetVersion():
		return false, errs.New(errs.Precondition,
			"replica %s can apply commands of version %d, and the cluster is at %d: update it first", r.ReplicaId, r.SchemaVersion, t.c.cluster().GetVersion())
	}
	for _, server := range servers {
		if server.ID == r.ReplicaId || server.Address != r.RaftAddress && nameOf(server.ID) != nameOf(r.ReplicaId) {
			continue
		}
		if err := t.replace(ctx, server, r); err != nil {
			return false, err
		}
	}
	if known < 0 || servers[known].Address != r.RaftAddress {
		if err := own.AddNonvoter(ctx, r.ReplicaId, r.RaftAddress); err != nil {
			return false, err
		}
		t.c.log.Info("a replica is being taken in", "id", r.ReplicaId, "address", r.RaftAddress)
	}
	if known >= 0 && servers[known].Voter {
		return true, nil // it has moved
	}
	if _, commit, _ := own.Progress(); r.AppliedIndex+promotionLag < commit || r.AppliedIndex == 0 {
		return false, nil
	}
	if err := own.Promote(ctx, r.ReplicaId, r.RaftAddress); err != nil {
		return false, err
	}
	t.c.log.Info("a replica has joined", "id", r.ReplicaId, "address", r.RaftAddress)
	return true, nil
}

// replace removes a member in whose place another replica joins, unless it
// lives.
func (t *term) replace(ctx context.Context, old Server, r *peerpb.JoinRequest) error {
	if t.c.alive(ctx)[old.ID] {
		return errs.New(errs.Conflict, "replica %s at %s lives, so %s can't join at %s: give it a name and a raft address of its own",
			old.ID, old.Address, r.ReplicaId, r.RaftAddress)
	}
	t.c.log.Warn("a dead replica is replaced", "old", old.ID, "new", r.ReplicaId, "address", r.RaftAddress)
	return t.c.options.Consensus.Remove(ctx, old.ID)
}

// remove takes a replica out, unless the rest could not decide anything then.
func (t *term) remove(ctx context.Context, id string) error {
	if err := t.holdMembership(ctx); err != nil {
		return err
	}
	defer t.freeMembership()
	own := t.c.options.Consensus
	alive := t.c.alive(ctx)
	var rest, silent []string
	for _, server := range own.Servers() {
		if server.Voter && server.ID != id {
			rest = append(rest, server.ID)
			if !alive[server.ID] {
				silent = append(silent, server.ID)
			}
		}
	}
	if len(rest)-len(silent) < len(rest)/2+1 {
		return errs.New(errs.Precondition, "without %s the cluster would have no majority: of the other voters %s",
			id, describeSilent(rest, silent))
	}
	if id == own.ID() {
		// The next leader does it, so that nothing in hand here is lost.
		if err := own.Transfer(ctx, ""); err != nil {
			return err
		}
		return errs.New(errs.NotLeader, "%s has handed its leadership over, to be removed", t.c.options.Name)
	}
	if err := own.Remove(ctx, id); err != nil {
		return err
	}
	t.c.log.Warn("a replica was removed", "id", id)
	return nil
}

func describeSilent(rest, silent []string) string {
	if len(rest) == 0 {
		return "there is none"
	}
	return fmt.Sprintf("%s do not answer; bring them back, or remove them first", strings.Join(silent, ", "))
}
