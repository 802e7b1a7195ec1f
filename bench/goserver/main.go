// Command goserver answers /download over quic-go's HTTP/3 and, on the same port, over the kernel's
// TCP: the senders that quicedge's congestion control is compared with.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/quic-go/quic-go/http3"
)

func main() {
	address := flag.String("listen", "127.0.0.1:4433", "host:port")
	certificate := flag.String("cert", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	flag.Parse()
	handler := http.NewServeMux()
	handler.HandleFunc("/download", download)
	failed := make(chan error)
	go func() {
		failed <- http.ListenAndServeTLS(*address, *certificate, *key, handler)
	}()
	go func() {
		failed <- http3.ListenAndServeQUIC(*address, *certificate, *key, handler)
	}()
	fmt.Fprintln(os.Stderr, "goserver:", <-failed)
	os.Exit(1)
}

// download sends as many bytes as the query asks for; they repeat 0 to 255.
func download(writer http.ResponseWriter, request *http.Request) {
	size, err := strconv.Atoi(request.URL.Query().Get("size"))
	if err != nil {
		http.Error(writer, "size is not a number", http.StatusBadRequest)
		return
	}
	block := make([]byte, 65536)
	for at := range block {
		block[at] = byte(at)
	}
	writer.Header().Set("Content-Length", strconv.Itoa(size))
	for size > 0 {
		count, err := writer.Write(block[:min(size, len(block))])
		if err != nil {
			return
		}
		size -= count
	}
}
