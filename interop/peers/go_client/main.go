// Command goclient is quic-go on Go's crypto/tls as client of `python -m interop tls`.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	unsupported = 127
	// How long it waits for a session ticket after its request.
	ticketWait = 500 * time.Millisecond
)

func main() {
	urls := strings.Fields(os.Getenv("REQUESTS"))
	testcase := os.Getenv("TESTCASE")
	if os.Getenv("ROLE") != "client" || len(urls) == 0 {
		os.Exit(unsupported)
	}
	pem, err := os.ReadFile(os.Getenv("CERTS") + "/ca.pem")
	if err != nil {
		fail(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	settings := &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	switch testcase {
	case "handshake":
		get(settings, http.MethodGet, urls[0])
	case "resumption":
		get(settings, http.MethodGet, urls[0])
		get(settings, http.MethodGet, urls[0])
	case "zerortt":
		get(settings, http.MethodGet, urls[0])
		get(settings, http3.MethodGet0RTT, urls[0])
	default:
		os.Exit(unsupported)
	}
}

// get makes a request on a connection of its own.
func get(settings *tls.Config, method, url string) {
	transport := &http3.Transport{
		TLSClientConfig: settings,
		Dial: func(ctx context.Context, address string, tls *tls.Config, quic_ *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, address, tls, quic_)
		},
	}
	defer transport.Close()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		fail(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		fail(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != 200 {
		fail(fmt.Errorf("status %d, %v", response.StatusCode, err))
	}
	time.Sleep(ticketWait)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
