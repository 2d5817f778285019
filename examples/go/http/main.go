// Fetches http://HOST:PORT/PATH for "HOST PORT PATH" and writes the page to standard output, by Go's own HTTP client.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"spore/network"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: http HOST PORT PATH")
		os.Exit(2)
	}
	client := http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
	answer, err := client.Get("http://" + net.JoinHostPort(os.Args[1], os.Args[2]) + os.Args[3])
	if err == nil {
		defer answer.Body.Close()
		_, err = io.Copy(os.Stdout, answer.Body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}
