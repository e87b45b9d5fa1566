package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// bindAttempts is how often a port that the system picked for TCP is tried for UDP too, since it may be taken there.
const bindAttempts = 10

// transport is memberlist's own on UDP and TCP, with dials that end with a context: a seed that drops packets must not
// hold up the stop of the process.
type transport struct {
	*memberlist.NetTransport
	ctx context.Context
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	return dialer.DialContext(t.ctx, "tcp", a.Addr)
}

// listen binds UDP and TCP, and sets in config what is advertised.
func listen(ctx context.Context, o Options, config *memberlist.Config) (memberlist.NodeAwareTransport, error) {
	host, port, err := splitHostPort(o.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip bind address %q: write it as host:port: %w", o.Bind, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ips, err := resolve(ctx, o.Resolver, host)
	if err != nil {
		return nil, fmt.Errorf("gossip bind address %q: %w", o.Bind, err)
	}
	if err := advertise(ctx, o, config); err != nil {
		return nil, fmt.Errorf("gossip advertise address %q: %w", o.Advertise, err)
	}
	if ip := ips[0]; ip.Is6() && ip.IsUnspecified() && o.Advertise == "" {
		return nil, fmt.Errorf("gossip bind address %q is unspecified: set an advertise address, at which others reach this member", o.Bind)
	}
	t, err := bind(&memberlist.NetTransportConfig{
		BindAddrs: []string{ips[0].String()},
		BindPort:  int(port),
		Logger:    config.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("gossip bind address %q: %w", o.Bind, err)
	}
	config.BindPort = t.GetAutoBindPort()
	if config.AdvertisePort == 0 {
		config.AdvertisePort = config.BindPort
	}
	return &transport{NetTransport: t, ctx: ctx}, nil
}

func bind(config *memberlist.NetTransportConfig) (t *memberlist.NetTransport, err error) {
	for range bindAttempts {
		t, err = memberlist.NewNetTransport(config)
		if err == nil || config.BindPort != 0 {
			break
		}
	}
	return t, err
}

// advertise leaves the address empty if none is configured, so that the transport finds one, and the port 0 if it is the
// bound one.
func advertise(ctx context.Context, o Options, config *memberlist.Config) error {
	config.AdvertiseAddr, config.AdvertisePort = "", 0
	if o.Advertise == "" {
		return nil
	}
	host, port, err := splitHostPort(o.Advertise)
	if err != nil {
		return fmt.Errorf("write it as host:port: %w", err)
	}
	ips, err := resolve(ctx, o.Resolver, host)
	if err != nil {
		return err
	}
	if ips[0].IsUnspecified() {
		return errors.New("it is unspecified, so nobody could reach this member at it: set a host or an IP address")
	}
	config.AdvertiseAddr, config.AdvertisePort = ips[0].String(), int(port)
	return nil
}

// discard shuts down a transport that no memberlist reads from. Its listeners may be stuck with what they have received.
func discard(t memberlist.Transport) error {
	done := make(chan struct{})
	var drain sync.WaitGroup
	drain.Go(func() {
		for {
			select {
			case <-t.PacketCh():
			case c := <-t.StreamCh():
				c.Close()
			case <-done:
				return
			}
		}
	})
	err := t.Shutdown()
	close(done)
	drain.Wait()
	return err
}
