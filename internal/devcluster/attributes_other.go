//go:build !linux

package devcluster

import "syscall"

// attributes puts a process into a group of its own, so that a Ctrl-C in the
// terminal reaches its starter alone.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
