package devcluster

import "syscall"

// attributes puts a process into a group of its own, so that a Ctrl-C in the
// terminal reaches its starter alone, and makes the kernel kill it when the
// starter dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
