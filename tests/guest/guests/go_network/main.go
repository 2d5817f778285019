// The Go binding of sockets: "HOST PORT UDP_PORT", with servers of network_test.cc there, and its resolver.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"spore/network"
)

func check(what string, holds bool) {
	if !holds {
		fmt.Fprintln(os.Stderr, what, "does not hold")
		os.Exit(100)
	}
}

func as[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

var client = http.Client{Transport: &http.Transport{DialContext: network.DialContext}}

func fetch(url string) string {
	answer := as(client.Get(url))
	defer answer.Body.Close()
	check("status", answer.StatusCode == 200)
	return string(as(io.ReadAll(answer.Body)))
}

func datagrams(address string) {
	connection := as(network.Dial("udp", address))
	as(connection.Write([]byte("to you")))
	text := make([]byte, 64)
	check("echo", string(text[:as(connection.Read(text))]) == "to you")
	check("remote", connection.RemoteAddr().String() == address)
	connection.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	began := time.Now()
	_, err := connection.Read(text)
	check("deadline", errors.Is(err, os.ErrDeadlineExceeded) && time.Since(began) >= 19*time.Millisecond)
	connection.Close()

	packets := as(network.ListenPacket("udp", "127.0.0.1:0"))
	as(packets.WriteTo([]byte("packet"), as(net.ResolveUDPAddr("udp", address))))
	size, from, err := packets.ReadFrom(text)
	check("packet", err == nil && string(text[:size]) == "packet" && from.String() == address)
	packets.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, _, err = packets.ReadFrom(text)
	check("packet deadline", errors.Is(err, os.ErrDeadlineExceeded))
	check("closes", packets.Close() == nil)
}

// Server and client are goroutines of one program: neither may hold up the other.
func ownServer() {
	listener := as(network.Listen("tcp", "127.0.0.1:0"))
	address := listener.Addr().String()
	server := http.Server{Handler: http.HandlerFunc(func(to http.ResponseWriter, from *http.Request) {
		fmt.Fprintf(to, "%s from %v", from.URL.Path, strings.HasPrefix(from.RemoteAddr, "127.0.0.1:"))
	})}
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			for j := 0; j < 3; j++ {
				path := fmt.Sprintf("/%d/%d", i, j)
				check(path, fetch("http://"+address+path) == path+" from true")
			}
		}(i)
	}
	all.Wait()
	client.CloseIdleConnections()
	server.Close()
	check("served", <-done == http.ErrServerClosed)
	_, err := network.Dial("tcp", address)
	check("refused", errors.Is(err, syscall.ECONNREFUSED))
}

func streams() {
	listener := as(network.Listen("tcp4", "localhost:0"))
	out := as(network.Dial("tcp", listener.Addr().String()))
	in := as(listener.Accept())
	check("addresses", in.RemoteAddr().String() == out.LocalAddr().String() &&
		in.LocalAddr().String() == out.RemoteAddr().String())
	sent := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		io.WriteString(out, sent)
		out.(interface{ CloseWrite() error }).CloseWrite()
	}()
	check("whole", string(as(io.ReadAll(in))) == sent)
	in.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := in.Read(make([]byte, 1))
	check("late", errors.Is(err, os.ErrDeadlineExceeded))
}

func names() {
	found := []string{}
	for _, addr := range as(network.LookupAddrs(context.Background(), "good.test")) {
		found = append(found, addr.String())
	}
	sort.Strings(found)
	check("good", strings.Join(found, " ") == "192.0.2.1 fd00::1")
	var failure *net.DNSError
	_, err := network.Dial("tcp", "nobody.test:80")
	check("nobody", errors.As(err, &failure) && failure.IsNotFound)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = network.LookupAddrs(ctx, "silent.test")
	check("silent", errors.As(err, &failure) && failure.IsTimeout)
	_, err = network.Dial("unix", "/a")
	check("unix", err != nil)
}

// A port where connections are not answered: the context ends it.
func unanswered(address string) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := network.DialContext(ctx, "tcp", address)
	check("unanswered", errors.Is(err, context.DeadlineExceeded) && time.Since(began) >= 49*time.Millisecond)
	early, cancelEarly := context.WithCancel(context.Background())
	go func() {
		time.Sleep(10 * time.Millisecond)
		cancelEarly()
	}()
	_, err = network.DialContext(early, "tcp", address)
	check("cancelled", errors.Is(err, context.Canceled))
}

func main() {
	host := os.Args[1]
	fmt.Print(fetch("http://" + net.JoinHostPort(host, os.Args[2]) + "/hello"))
	datagrams(net.JoinHostPort(host, os.Args[3]))
	unanswered(net.JoinHostPort(host, os.Args[4]))
	streams()
	ownServer()
	names()
}
