package node

import (
	"fmt"
	"strings"

	"github.com/orrery-project/orrery/configs"
	"github.com/orrery-project/orrery/fsm"
	"github.com/orrery-project/orrery/raftnode"
)

// Holdings are what a stopped replica holds.
type Holdings struct {
	// ID is the replica's.
	ID string
	// LastIndex and LastTerm are of its last entry.
	LastIndex, LastTerm uint64
	// Servers are the replicas of its cluster as it knew them, for a person.
	Servers string
}

// Recover says what the stopped replica of a configuration holds. If write is
// set it also makes it the only voter of its cluster, for a cluster that has
// lost its majority for good.
func Recover(config *configs.Controller, write bool, o Options) (Holdings, error) {
	o = o.withDefaults()
	logger := o.Logger.Named("raft")
	var held raftnode.Recovered
	var err error
	if write {
		held, err = raftnode.Recover(raftnode.RecoverOptions{
			Dir: config.DataDir, Address: string(config.Advertised().Raft), FSM: fsm.NewRecoverer(), Logger: logger,
		})
	} else {
		held, err = raftnode.Inspect(config.DataDir, logger)
	}
	if err != nil {
		return Holdings{}, err
	}
	var servers []string
	for _, s := range held.Servers {
		role := "voter"
		if !s.Voter {
			role = "learner"
		}
		servers = append(servers, fmt.Sprintf("%s at %s (%s)", s.ID, s.Address, role))
	}
	return Holdings{ID: held.ID, LastIndex: held.LastIndex, LastTerm: held.LastTerm, Servers: strings.Join(servers, ", ")}, nil
}
