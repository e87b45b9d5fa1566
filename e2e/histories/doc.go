// Package histories tests that control operations are linearizable. Concurrent
// clients change and read models and settings at any controller while leaders
// are killed, paused and cut off; what they asked, what they were told and when
// is a history, and a checker looks for an order of the operations that
// explains it.
//
// So that a history without a fault means something, the same clients and the
// same checker run against deliberately broken builds, which must be caught.
//
// HISTORIES=long runs the long form (make test-histories), E2E_SEED repeats
// the random choices of a run, which prints them, and E2E_BINARY names another
// binary to test.
package histories
