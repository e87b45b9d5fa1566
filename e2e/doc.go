// Package e2e tests Orrery from outside: clusters of real processes on
// loopback, real models, and faults such as SIGKILL and SIGSTOP. What the
// processes do is seen by their interfaces, exit statuses and logs alone.
//
// The tests build the binary themselves; the variable E2E_BINARY names another
// one. E2E_SEED repeats the random choices of a run, which prints it. On failure the processes' logs and configurations are kept among the
// test's artifacts (go test -artifacts).
package e2e
