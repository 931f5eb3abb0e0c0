package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPatience is how long a dying process may take to let go: after a kill its memory is freed first.
const lockPatience = 5 * time.Second

// Lock takes the data folder for this process until it ends, in whatever way.
// It keeps a second server from opening the same datastore.
func Lock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder (give another one with data-dir): %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the data folder: %w", err)
	}
	for patience := time.After(lockPatience); ; {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		select {
		case <-patience:
			return nil, fmt.Errorf("another server uses %s; stop it or give another data-dir", filepath.Dir(path))
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return file, nil
}
