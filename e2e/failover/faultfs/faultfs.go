//go:build linux

// Package faultfs shows a folder a second time, as a file system whose writes
// can be made to fail or to hang, as those of a broken disk do. Reads go on
// working.
//
// It needs root and /dev/fuse.
package faultfs

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is a mounted file system. Its methods may be called from any goroutine.
type FS struct {
	server *fuse.Server
	at     string

	mu sync.Mutex
	// errno is what writes fail with; 0: they don't.
	errno syscall.Errno
	// healed is not nil while writes hang, and closed when they go on.
	healed chan struct{}
	held   int
}

// Mount shows the folder dir at the empty folder at. Unmount must be called.
func Mount(dir, at string) (*FS, error) {
	f := &FS{at: at}
	root := &node{LoopbackNode: &fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: dir}}, fs: f}
	server, err := fs.Mount(at, root, &fs.Options{MountOptions: fuse.MountOptions{
		// By the system call: no helper program, and no entry in a table that
		// would outlive this program's mount namespace.
		DirectMountStrict: true,
		FsName:            "faultfs", Name: "faultfs",
	}})
	if err != nil {
		return nil, fmt.Errorf("mount a faulty file system at %s (needs root and /dev/fuse): %w", at, err)
	}
	f.server = server
	return f, nil
}

// Fail makes all that changes something fail with errno, until Heal: EIO for a
// disk that is broken, ENOSPC for one that is full.
func (f *FS) Fail(errno syscall.Errno) {
	f.Heal()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errno = errno
}

// Hang makes all that changes something wait until Heal, and then go through.
// As with a real disk not even SIGKILL ends the wait: a process that has a write
// under way dies, and its connections close, only once that write returns.
func (f *FS) Hang() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errno = 0
	if f.healed == nil {
		f.healed = make(chan struct{})
	}
}

// Heal ends what Fail or Hang has begun.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errno = 0
	if f.healed != nil {
		close(f.healed)
		f.healed = nil
	}
}

// Held is how many writes are hanging now.
func (f *FS) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}

// Unmount heals and unmounts. It fails while a file is open.
func (f *FS) Unmount() error {
	f.Heal()
	if err := f.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", f.at, err)
	}
	f.server.Wait()
	return nil
}

// change is called before everything that changes something. The context, which
// ends with a signal to the caller, is ignored on purpose: see Hang.
func (f *FS) change() syscall.Errno {
	f.mu.Lock()
	for f.healed != nil {
		healed := f.healed
		f.held++
		f.mu.Unlock()
		<-healed
		f.mu.Lock()
		f.held--
	}
	defer f.mu.Unlock()
	return f.errno
}

// node is a file or a folder.
type node struct {
	*fs.LoopbackNode
	fs *FS
}

// WrapChild makes what is below like this.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*fs.LoopbackNode), fs: n.fs}
}

// Open opens a file.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		if errno := n.fs.change(); errno != 0 {
			return nil, 0, errno
		}
	}
	handle, opened, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(handle), opened, errno
}

// Create makes a file.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.fs.change(); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, handle, opened, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.wrap(handle), opened, errno
}

func (n *node) wrap(handle fs.FileHandle) fs.FileHandle {
	if f, ok := handle.(*fs.LoopbackFile); ok {
		return &file{LoopbackFile: f, fs: n.fs}
	}
	return nil
}

// Mkdir makes a folder.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.fs.change(); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

// Rename renames.
func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	if errno := n.fs.change(); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, to, flags)
}

// Setattr changes the size, among others.
func (n *node) Setattr(ctx context.Context, handle fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.fs.change(); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Setattr(ctx, handle, in, out)
}

// file is an open file.
type file struct {
	*fs.LoopbackFile
	fs *FS
}

// PassthroughFd keeps the kernel from writing past this file system.
func (f *file) PassthroughFd() (int, bool) { return -1, false }

// Write writes.
func (f *file) Write(ctx context.Context, data []byte, offset int64) (uint32, syscall.Errno) {
	if errno := f.fs.change(); errno != 0 {
		return 0, errno
	}
	return f.LoopbackFile.Write(ctx, data, offset)
}

// Fsync makes durable what was written.
func (f *file) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if errno := f.fs.change(); errno != 0 {
		return errno
	}
	return f.LoopbackFile.Fsync(ctx, flags)
}

// Allocate makes room.
func (f *file) Allocate(ctx context.Context, offset, size uint64, mode uint32) syscall.Errno {
	if errno := f.fs.change(); errno != 0 {
		return errno
	}
	return f.LoopbackFile.Allocate(ctx, offset, size, mode)
}
