package fsm

import (
	"io"
	"time"

	"github.com/orrery-project/orrery/proto/logpb"
)

// Summary is what a person wants to know of a snapshot.
type Summary struct {
	Format uint32
	// Index is the log index of the last command in it.
	Index uint64
	// Bytes is the size of all of it.
	Bytes     int64
	ClusterID string
	// Version is the cluster's, the newest schema that its commands may have.
	Version uint32
	Epoch   uint64
	Phase   logpb.Phase
	// Time is the proposer's time of the newest command.
	Time        time.Time
	LastModelID uint64

	Workers, Models, Holdings, Profiles, Requests int

	Digest string
}

// Inspect reads a snapshot to its end and checks it as Restore does, with the same errors.
func Inspect(r io.Reader) (Summary, error) {
	counted := &counter{r: r}
	s, err := Restore(counted)
	if err != nil {
		return Summary{}, err
	}
	summary := Summary{
		Format:      snapshotFormat,
		Index:       s.index,
		Bytes:       counted.n,
		ClusterID:   s.cluster.GetId(),
		Version:     s.cluster.GetVersion(),
		Epoch:       s.cluster.GetEpoch(),
		Phase:       s.Phase(),
		Time:        time.Unix(0, s.now).UTC(),
		LastModelID: s.lastModelID,
		Workers:     len(s.workers.keys),
		Models:      len(s.models.keys),
		Profiles:    len(s.profiles.keys),
		Requests:    len(s.requests.rows),
		Digest:      s.Digest(),
	}
	for _, id := range s.models.keys {
		summary.Holdings += len(s.holdings[id])
	}
	return summary, nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
