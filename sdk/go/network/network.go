//go:build wasip1

// Package network is sockets for Go on Spore: what package net cannot open on this target by itself (docs/network.md).
// Connections and listeners are those of package net from then on, with deadlines, and wait for the network while other
// goroutines go on:
//
//	client := http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
//	page, err := client.Get("http://example.org/")
//
// Names are looked up by LookupAddrs, which holds up the whole program while it asks. Errors are *net.OpError around
// syscall.Errno: ENOTSUP (the call has no network), ECONNREFUSED and so on; of names *net.DNSError. Needs GOOS=wasip1 and
// Go 1.21 or later.
package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// As the host takes it.
type rawAddress struct {
	family   uint16
	port     uint16
	flowInfo uint32
	scopeID  uint32
	address  [16]byte
}

const (
	inet4         = 1
	inet6         = 2
	datagrams     = 5
	stream        = 6
	optionError   = 2
	optionReuse   = 3
	optionNoDelay = 9
	backlog       = 128
	resolvedMax   = 64
	resolveMs     = 10_000
)

//go:wasmimport spore sock_open
func sockOpen(family uint32, kind uint32) int64

//go:wasmimport spore sock_connect
func sockConnect(fd uint32, to unsafe.Pointer) int64

//go:wasmimport spore sock_bind
func sockBind(fd uint32, to unsafe.Pointer) int64

//go:wasmimport spore sock_listen
func sockListen(fd uint32, backlog uint32) int64

//go:wasmimport spore sock_sendto
func sockSendto(fd uint32, from unsafe.Pointer, sizeBytes uint32, flags uint32, to unsafe.Pointer) int64

//go:wasmimport spore sock_recvfrom
func sockRecvfrom(fd uint32, to unsafe.Pointer, sizeBytes uint32, flags uint32, from unsafe.Pointer) int64

//go:wasmimport spore sock_getsockname
func sockGetsockname(fd uint32, to unsafe.Pointer) int64

//go:wasmimport spore sock_getpeername
func sockGetpeername(fd uint32, to unsafe.Pointer) int64

//go:wasmimport spore sock_getsockopt
func sockGetsockopt(fd uint32, option uint32) int64

//go:wasmimport spore sock_setsockopt
func sockSetsockopt(fd uint32, option uint32, value int64) int64

//go:wasmimport spore sock_resolve
func sockResolve(name unsafe.Pointer, nameBytes uint32, family uint32, to unsafe.Pointer, count uint32,
	timeoutMs uint32) int64

func checked(result int64) (uint64, error) {
	if result < 0 {
		return 0, syscall.Errno(-result)
	}
	return uint64(result), nil
}

func rawOf(from netip.AddrPort) *rawAddress {
	to := &rawAddress{family: inet6, port: from.Port()}
	ip := from.Addr()
	if ip.Is4() {
		to.family = inet4
		four := ip.As4()
		copy(to.address[:], four[:])
		return to
	}
	to.address = ip.As16()
	if zone, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
		to.scopeID = uint32(zone)
	}
	return to
}

func (r *rawAddress) addrPort() netip.AddrPort {
	ip := netip.AddrFrom16(r.address)
	if r.family == inet4 {
		ip = netip.AddrFrom4([4]byte(r.address[:4]))
	} else if r.scopeID != 0 {
		ip = ip.WithZone(strconv.FormatUint(uint64(r.scopeID), 10))
	}
	return netip.AddrPortFrom(ip, r.port)
}

func (r *rawAddress) addr(kind uint32) net.Addr {
	if kind == stream {
		return net.TCPAddrFromAddrPort(r.addrPort())
	}
	return net.UDPAddrFromAddrPort(r.addrPort())
}

func ownAddress(fd uint32, kind uint32) net.Addr {
	var address rawAddress
	sockGetsockname(fd, unsafe.Pointer(&address))
	return address.addr(kind)
}

func peerAddress(fd uint32, kind uint32) net.Addr {
	var address rawAddress
	sockGetpeername(fd, unsafe.Pointer(&address))
	return address.addr(kind)
}

// LookupAddrs looks a name up; at most 64 addresses, within 10 seconds or until the context's deadline. Numbers and
// "localhost" are asked of nobody.
func LookupAddrs(ctx context.Context, name string) ([]netip.Addr, error) { return lookup(ctx, name, 0) }

func lookup(ctx context.Context, name string, family uint32) ([]netip.Addr, error) {
	ms := int64(resolveMs)
	if deadline, ok := ctx.Deadline(); ok {
		ms = min(ms, max(0, time.Until(deadline).Milliseconds()))
	}
	var found [resolvedMax]rawAddress
	count, err := checked(sockResolve(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), family,
		unsafe.Pointer(&found), resolvedMax, uint32(ms)))
	runtime.KeepAlive(name)
	if err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: name, IsNotFound: err == syscall.ENOENT,
			IsTimeout: err == syscall.ETIMEDOUT, IsTemporary: err == syscall.EAGAIN || err == syscall.ETIMEDOUT}
	}
	addrs := make([]netip.Addr, count)
	for i := range addrs {
		addrs[i] = found[i].addrPort().Addr()
	}
	return addrs, nil
}

// The type of socket and family (0: any) of "tcp", "udp4" and so on.
func kindOf(network string) (kind uint32, family uint32, err error) {
	switch {
	case strings.HasPrefix(network, "tcp"):
		kind = stream
	case strings.HasPrefix(network, "udp"):
		kind = datagrams
	default:
		return 0, 0, net.UnknownNetworkError(network)
	}
	switch network[3:] {
	case "":
	case "4":
		family = inet4
	case "6":
		family = inet6
	default:
		return 0, 0, net.UnknownNetworkError(network)
	}
	return kind, family, nil
}

// The addresses of "host:port". No host: the loopback address, or any for one that listens.
func addressesOf(ctx context.Context, network, address string, listens bool) (uint32, []netip.AddrPort, error) {
	kind, family, err := kindOf(network)
	if err != nil {
		return 0, nil, err
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return 0, nil, err
	}
	port, err := net.LookupPort(network, service)
	if err != nil {
		return 0, nil, err
	}
	if host == "" {
		host = "localhost"
		if listens && family == inet6 {
			host = "::"
		} else if listens {
			host = "0.0.0.0"
		}
	}
	addrs, err := lookup(ctx, host, family)
	if err != nil {
		return 0, nil, err
	}
	ports := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		ports[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	return kind, ports, nil
}

// A new non-blocking socket.
func open(kind uint32, to *rawAddress) (uint32, error) {
	fd, err := checked(sockOpen(uint32(to.family), kind))
	if err != nil {
		return 0, err
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		syscall.Close(int(fd))
		return 0, err
	}
	return uint32(fd), nil
}

// A connection of package net, with its addresses, which that does not know here.
type tcpConn struct {
	*net.TCPConn
	local, remote net.Addr
}

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

type udpConn struct {
	*net.UDPConn
	local, remote net.Addr
}

func (c *udpConn) LocalAddr() net.Addr  { return c.local }
func (c *udpConn) RemoteAddr() net.Addr { return c.remote }

// Dial connects to "host:port". network: "tcp", "udp", or one of these with "4" or "6" behind it.
func Dial(network, address string) (net.Conn, error) {
	return DialContext(context.Background(), network, address)
}

// DialContext is Dial until the context is done. The addresses of a name are tried one after another.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	fails := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	kind, ports, err := addressesOf(ctx, network, address, false)
	if err != nil {
		return fails(err)
	}
	for _, port := range ports {
		var connection net.Conn
		if connection, err = dial(ctx, kind, port); err == nil {
			return connection, nil
		}
		if ctx.Err() != nil {
			return fails(ctx.Err())
		}
	}
	return fails(err)
}

func dial(ctx context.Context, kind uint32, port netip.AddrPort) (net.Conn, error) {
	to := rawOf(port)
	fd, err := open(kind, to)
	if err != nil {
		return nil, err
	}
	if kind == stream {
		sockSetsockopt(fd, optionNoDelay, 1) // as package net does
	}
	_, err = checked(sockConnect(fd, unsafe.Pointer(to)))
	if err != nil && err != syscall.EINPROGRESS {
		syscall.Close(int(fd))
		return nil, err
	}
	file := os.NewFile(uintptr(fd), port.String())
	connection, failed := net.FileConn(file) // shares the descriptor
	file.Close()
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		if err = finishConnect(ctx, fd, connection); err != nil {
			connection.Close()
			return nil, err
		}
	}
	local, remote := ownAddress(fd, kind), port
	switch c := connection.(type) {
	case *net.TCPConn:
		return &tcpConn{c, local, net.TCPAddrFromAddrPort(remote)}, nil
	case *net.UDPConn:
		return &udpConn{c, local, net.UDPAddrFromAddrPort(remote)}, nil
	}
	return connection, nil
}

// Waits until a connection that is under way is there, has failed, or the context is done.
func finishConnect(ctx context.Context, fd uint32, connection net.Conn) error {
	raw, err := connection.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	past := time.Unix(1, 0)
	defer connection.SetWriteDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { connection.SetWriteDeadline(past) })
	asked := false
	err = raw.Write(func(uintptr) bool {
		waited := asked
		asked = true
		return waited
	})
	if !stop() && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	code, err := checked(sockGetsockopt(fd, optionError))
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	return err
}

type listener struct {
	*net.TCPListener
	addr net.Addr
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Accept() (net.Conn, error) {
	connection, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	out := &tcpConn{connection, l.addr, nil}
	raw, err := connection.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			sockSetsockopt(uint32(fd), optionNoDelay, 1)
			out.local, out.remote = ownAddress(uint32(fd), stream), peerAddress(uint32(fd), stream)
		})
	}
	if err != nil {
		connection.Close()
		return nil, err
	}
	return out, nil
}

// Listen takes connections at "host:port"; port 0 is one that is free. network: "tcp", "tcp4", "tcp6".
func Listen(network, address string) (net.Listener, error) {
	fails := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	fd, err := bound(network, address, stream)
	if err != nil {
		return fails(err)
	}
	if _, err := checked(sockListen(fd, backlog)); err != nil {
		syscall.Close(int(fd))
		return fails(err)
	}
	file := os.NewFile(uintptr(fd), address)
	defer file.Close()
	made, err := net.FileListener(file)
	if err != nil {
		return fails(err)
	}
	taker, ok := made.(*net.TCPListener)
	if !ok {
		made.Close()
		return fails(errors.New("not a listener of package net"))
	}
	return &listener{taker, ownAddress(fd, stream)}, nil
}

func bound(network, address string, wanted uint32) (uint32, error) {
	kind, ports, err := addressesOf(context.Background(), network, address, true)
	if err != nil {
		return 0, err
	}
	if kind != wanted {
		return 0, net.UnknownNetworkError(network)
	}
	to := rawOf(ports[0])
	fd, err := open(kind, to)
	if err != nil {
		return 0, err
	}
	if kind == stream {
		sockSetsockopt(fd, optionReuse, 1)
	}
	if _, err := checked(sockBind(fd, unsafe.Pointer(to))); err != nil {
		syscall.Close(int(fd))
		return 0, err
	}
	return fd, nil
}

// Package net has no datagrams from and to any address here.
type packetConn struct {
	file  *os.File
	raw   syscall.RawConn
	local net.Addr
}

// ListenPacket receives and sends datagrams at "host:port"; port 0 is one that is free. network: "udp", "udp4", "udp6".
func ListenPacket(network, address string) (net.PacketConn, error) {
	fails := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	fd, err := bound(network, address, datagrams)
	if err != nil {
		return fails(err)
	}
	file := os.NewFile(uintptr(fd), address)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return fails(err)
	}
	return &packetConn{file, raw, ownAddress(fd, datagrams)}, nil
}

func (p *packetConn) ReadFrom(to []byte) (int, net.Addr, error) {
	var from rawAddress
	var result int64
	err := p.raw.Read(func(fd uintptr) bool {
		result = sockRecvfrom(uint32(fd), unsafe.Pointer(unsafe.SliceData(to)), uint32(len(to)), 0, unsafe.Pointer(&from))
		return result != -int64(syscall.EAGAIN)
	})
	runtime.KeepAlive(to)
	if err != nil {
		return 0, nil, err
	}
	size, err := checked(result)
	if err != nil {
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Addr: p.local, Err: err}
	}
	return int(size), from.addr(datagrams), nil
}

func (p *packetConn) WriteTo(from []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: syscall.EINVAL}
	}
	port := udp.AddrPort()
	// Package net may hold an address of IPv4 in the form of IPv6.
	address := rawOf(netip.AddrPortFrom(port.Addr().Unmap(), port.Port()))
	var result int64
	err := p.raw.Write(func(fd uintptr) bool {
		result = sockSendto(uint32(fd), unsafe.Pointer(unsafe.SliceData(from)), uint32(len(from)), 0,
			unsafe.Pointer(address))
		return result != -int64(syscall.EAGAIN)
	})
	runtime.KeepAlive(from)
	if err != nil {
		return 0, err
	}
	size, err := checked(result)
	if err == nil && int(size) != len(from) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return int(size), &net.OpError{Op: "write", Net: "udp", Addr: to, Err: err}
	}
	return int(size), nil
}

func (p *packetConn) Close() error                       { return p.file.Close() }
func (p *packetConn) LocalAddr() net.Addr                { return p.local }
func (p *packetConn) SetDeadline(t time.Time) error      { return p.file.SetDeadline(t) }
func (p *packetConn) SetReadDeadline(t time.Time) error  { return p.file.SetReadDeadline(t) }
func (p *packetConn) SetWriteDeadline(t time.Time) error { return p.file.SetWriteDeadline(t) }
