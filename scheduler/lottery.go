package scheduler

import "math/rand/v2"

// lottery is the policy "lottery" of FastChat's controller (Zheng et al. 2023): a
// request goes to a device that is drawn from those that have the weights, with
// odds in proportion to their workers' speeds; and there they are run in the order
// of their arrival, by the rule of fifo. The seed is Options.Seed.
//
// While no device has the weights, or all are too slow, a request belongs to none,
// and to the first that can run it.
type lottery struct {
	fifo
	lots *rand.Rand
}

// lotteryLeast is, as in FastChat, the least sum of speeds to draw from.
const lotteryLeast = 1e-4

func newLottery(seed uint64) *lottery {
	return &lottery{lots: rand.New(rand.NewPCG(seed, 0))}
}

func (l *lottery) admit(p *core, r *request) (Completion, bool) {
	if r.deaths > 0 {
		return Completion{}, true // Trials are the core's.
	}
	sum := 0.0
	p.eachFit(r.model, func(d *device) { sum += d.speed })
	if sum < lotteryLeast {
		return Completion{}, true
	}
	lot := sum * l.lots.Float64()
	p.eachFit(r.model, func(d *device) {
		if lot >= 0 {
			r.bound = d
		}
		lot -= d.speed
	})
	return Completion{}, true
}
