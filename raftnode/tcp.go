package raftnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// ListenTCP accepts raft's connections on bind ("host:port"; port 0 takes any).
// Peers are told to dial advertise, which may be a name that only resolves for
// them; if empty, they are told the address that was bound.
func ListenTCP(bind, advertise string) (raft.StreamLayer, error) {
	listener, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("listen for raft on %s: %w", bind, err)
	}
	address := cmp.Or(advertise, listener.Addr().String())
	if err := checkDialable(address); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("raft address %s can't be advertised: %w: "+
			"set an address at which the other controllers reach this one", address, err)
	}
	dialling, stop := context.WithCancel(context.Background())
	return &tcpStream{Listener: listener, address: tcpAddress(address), dialling: dialling, stop: stop}, nil
}

func checkDialable(address string) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return err
	case host == "":
		return errors.New("it names no host")
	case net.ParseIP(host).IsUnspecified():
		return errors.New("it names every interface and thereby none")
	case port == "" || port == "0":
		return errors.New("it names no port")
	}
	return nil
}

type tcpStream struct {
	net.Listener
	address  tcpAddress
	dialling context.Context // ends with the stream, and with it dials under way
	stop     context.CancelFunc
}

func (s *tcpStream) Addr() net.Addr { return s.address }

func (s *tcpStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	return dialer.DialContext(s.dialling, "tcp", string(address))
}

func (s *tcpStream) Close() error {
	s.stop()
	return s.Listener.Close()
}

// tcpAddress is an address as it was configured, not yet resolved.
type tcpAddress string

func (tcpAddress) Network() string  { return "tcp" }
func (a tcpAddress) String() string { return string(a) }
