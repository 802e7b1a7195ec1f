package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// A client is exactly one connection to the edge.
type client struct {
	transport http.RoundTripper
	authority string
	close     func()
}

// dial completes a full handshake; certificates are not verified, and no session is resumed.
func dial(ctx context.Context, o options) (*client, error) {
	_, port, err := net.SplitHostPort(o.address)
	if err != nil {
		return nil, err
	}
	authority := net.JoinHostPort("localhost", port)
	settings := &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         "localhost",
		NextProtos:         []string{o.protocol},
	}
	if o.protocol == http3.NextProtoH3 {
		return dialQUIC(ctx, o, authority, settings)
	}
	dialer := tls.Dialer{Config: settings}
	raw, err := dialer.DialContext(ctx, "tcp", o.address)
	if err != nil {
		return nil, err
	}
	connection := raw.(*tls.Conn)
	got := connection.ConnectionState().NegotiatedProtocol
	if got == "" { // what a server without ALPN speaks
		got = "http/1.1"
	}
	if got != o.protocol {
		return nil, fmt.Errorf("the edge negotiated %q, not %q", got, o.protocol)
	}
	if o.protocol == http2.NextProtoTLS {
		transport, err := (&http2.Transport{}).NewClientConn(connection)
		if err != nil {
			return nil, err
		}
		return &client{transport, authority, func() { _ = connection.Close() }}, nil
	}
	return overHTTP1(connection, authority), nil
}

func dialQUIC(
	ctx context.Context, o options, authority string, settings *tls.Config,
) (*client, error) {
	connection, err := quic.DialAddr(ctx, o.address, settings, &quic.Config{
		MaxIdleTimeout: 2 * time.Minute,
		// Large transfers should be limited by the edge, not by the client's flow control.
		InitialStreamReceiveWindow: 8 << 20, MaxStreamReceiveWindow: 16 << 20,
		InitialConnectionReceiveWindow: 12 << 20, MaxConnectionReceiveWindow: 24 << 20,
	})
	if err != nil {
		return nil, err
	}
	transport := (&http3.Transport{}).NewClientConn(connection)
	leave := func() { _ = connection.CloseWithError(0x100, "") } // H3_NO_ERROR
	return &client{transport, authority, leave}, nil
}

// overHTTP1 sends requests over one connection that is already open.
func overHTTP1(connection *tls.Conn, authority string) *client {
	unused := make(chan *tls.Conn, 1)
	unused <- connection
	transport := &http.Transport{
		MaxConnsPerHost: 1,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case connection := <-unused:
				return connection, nil
			default:
				return nil, fmt.Errorf("the edge closed the connection")
			}
		},
	}
	return &client{transport, authority, func() { _ = connection.Close() }}
}
