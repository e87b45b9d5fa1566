package bench

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// WorkDir is a folder in memory that only this program sees, if it runs inside
// netlab.Main, and that is gone when it ends, however it does.
func WorkDir(name string) (dir string, remove func() error, err error) {
	if dir, err = os.MkdirTemp("", "orrery-"+name+"-"); err != nil {
		return "", nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount a memory file system at %s: %w", dir, err), os.Remove(dir))
	}
	return dir, func() error {
		return errors.Join(syscall.Unmount(dir, syscall.MNT_DETACH), os.Remove(dir))
	}, nil
}
