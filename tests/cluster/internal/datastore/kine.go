// Package datastore runs kine on SQLite inside this process and serves the etcd protocol on a Unix socket.
//
// In: the database path (k3s's own `server/db/state.db`) and the socket path. Out: a server the API server can use.
// Guarantee: what was acknowledged survives the death of the process; a socket left by a dead process is replaced.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"k8s.io/klog/v2"
)

// kine's own defaults (its command line), which its library does not apply.
const (
	emulatedVersion = "3.6.11"
	notifyInterval  = 5 * time.Second
	compactInterval = 5 * time.Minute
	compactTimeout  = 5 * time.Second
	compactRetain   = 1000
	compactBatch    = 1000
	pollBatch       = 500
)

// maxRequest is etcd's default request limit plus the overhead kine allows for gRPC, in bytes.
const maxRequest = 2 * 1024 * 1024

// Kine is the running datastore.
type Kine struct {
	cancel  context.CancelFunc
	backend sync.WaitGroup
}

// Start opens the database and listens on the socket.
func Start(database, socket string) (*Kine, error) {
	if err := os.MkdirAll(filepath.Dir(database), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the datastore: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	kine := &Kine{cancel: cancel}
	_, backend, err := sqlite.New(ctx, &kine.backend, &drivers.Config{
		DataSourceName:   database + "?" + sqlite.DefaultParams,
		CompactInterval:  compactInterval,
		CompactTimeout:   compactTimeout,
		CompactMinRetain: compactRetain,
		CompactBatchSize: compactBatch,
		PollBatchSize:    pollBatch,
	})
	if err == nil {
		err = backend.Start(ctx)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot open the datastore %s: %w", database, err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		cancel()
		return nil, fmt.Errorf("cannot replace the datastore socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o600)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot listen on the datastore socket: %w", err)
	}
	endpoint := grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.MaxRecvMsgSize(maxRequest),
	)
	server.New(backend, "unix", notifyInterval, emulatedVersion).Register(endpoint)
	go func() {
		if err := endpoint.Serve(listener); err != nil {
			klog.ErrorS(err, "The datastore stopped serving")
		}
	}()
	return kine, nil
}

// Stop closes the database. The API server must have ended before. As with k3s, the write-ahead log may stay beside
// the database (`state.db-wal`): whoever copies the datastore copies both.
// The socket goes with the process: closing it earlier only makes what is left of the API server try to reconnect.
func (k *Kine) Stop() {
	k.cancel()
	k.backend.Wait()
}
