// Package sim plays a scheduling policy over a fleet that does not exist: a
// discrete-event simulation of clients, a controller, a network and workers.
//
// The policy is the product's own code. What is imitated is what surrounds it:
// workers carry out actions as workerd does (one batch at a time on a device,
// in the order of the earliest starts; refusals; transfers of weights beside
// the batches; an account of pages), and clients send what a workload says.
//
// A run follows from its Scenario alone: the same seed gives the same report.
// All figures that come out are simulated, and are to be called so.
//
// Every run also audits the policy: Run fails when a request is completed
// twice, when an action goes to a worker that is not there, or when a batch is
// not what it says it is.
package sim
