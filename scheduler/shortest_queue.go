package scheduler

// shortestQueue is the policy "shortest queue" of FastChat's controller (Zheng et
// al. 2023): a request goes to the device with the fewest requests for its speed,
// the first by the workers' names on a tie, of those that have the weights; and
// there they are run in the order of their arrival, by the rule of fifo. Unlike
// there, lengths are counted at dispatch and at completion, not reported.
//
// While no device has the weights a request belongs to none, and to the first that
// gets them.
type shortestQueue struct{ fifo }

func (*shortestQueue) admit(p *core, r *request) (Completion, bool) {
	if r.deaths > 0 {
		return Completion{}, true // Trials are the core's.
	}
	var shortest float64
	p.eachFit(r.model, func(d *device) {
		if length := float64(d.length()) / d.speed; r.bound == nil || length < shortest {
			r.bound, shortest = d, length
		}
	})
	return Completion{}, true
}
