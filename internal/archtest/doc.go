// Package archtest tests the shape of this repository: which package may
// import which, and that the packages which decide are pure. Its tables, in
// tables_test.go, are the rules of docs/architecture.md in a form that fails.
package archtest
