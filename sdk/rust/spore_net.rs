//! Sockets for Rust: `TcpStream`, `TcpListener` and `UdpSocket` in the manner of std::net, whose own cannot be opened
//! on this target, and `lookup` of names (docs/network.md).
//!
//!     mod spore_net;  // this file, beside the program
//!
//!     use std::io::{Read, Write};
//!
//!     fn main() -> std::io::Result<()> {
//!         let mut server = spore_net::TcpStream::connect("example.org:80")?;
//!         server.write_all(b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n")?;
//!         let mut page = String::new();
//!         server.read_to_string(&mut page)?;
//!         Ok(())
//!     }
//!
//! One file without dependencies, for rustc 1.63 and later. Whatever waits holds up the whole function, until the
//! timeout that was set, or the call's end. Errors are std::io::Error with WASI's number: kind() is ConnectionRefused,
//! WouldBlock (a timeout has passed, or there is nothing and the socket is non-blocking), TimedOut (the resolvers are
//! silent), NotFound (no such name), and so on; raw_os_error() is Some(58) where the call has no network.
#![allow(dead_code)]

use raw::RawAddress;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

mod raw {
    /// An address as the host takes it.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    pub struct RawAddress {
        pub family: u16,
        pub port: u16,
        pub flow_info: u32,
        pub scope_id: u32,
        pub address: [u8; 16],
    }

    #[link(wasm_import_module = "spore")]
    extern "C" {
        pub fn sock_open(family: u32, kind: u32) -> i64;
        pub fn sock_connect(fd: u32, to: *const RawAddress) -> i64;
        pub fn sock_bind(fd: u32, to: *const RawAddress) -> i64;
        pub fn sock_listen(fd: u32, backlog: u32) -> i64;
        #[link_name = "sock_accept"]
        pub fn spore_sock_accept(fd: u32, peer: *mut RawAddress) -> i64;
        pub fn sock_sendto(fd: u32, from: *const u8, size_bytes: u32, flags: u32, to: *const RawAddress) -> i64;
        pub fn sock_recvfrom(fd: u32, to: *mut u8, size_bytes: u32, flags: u32, from: *mut RawAddress) -> i64;
        pub fn sock_getsockname(fd: u32, to: *mut RawAddress) -> i64;
        pub fn sock_getpeername(fd: u32, to: *mut RawAddress) -> i64;
        pub fn sock_getsockopt(fd: u32, option: u32) -> i64;
        pub fn sock_setsockopt(fd: u32, option: u32, value: i64) -> i64;
        pub fn sock_resolve(
            name: *const u8, name_bytes: u32, family: u32, to: *mut RawAddress, count: u32, timeout_ms: u32,
        ) -> i64;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    extern "C" {
        pub fn fd_close(fd: u32) -> i32;
        pub fn fd_fdstat_set_flags(fd: u32, flags: i32) -> i32;
        pub fn sock_shutdown(fd: u32, how: i32) -> i32;
    }
}

const INET4: u32 = 1;
const INET6: u32 = 2;
const DATAGRAMS: u32 = 5;
const STREAM: u32 = 6;
const PEEK: u32 = 1;
const REUSE_ADDRESS: u32 = 3;
const RECEIVE_TIMEOUT: u32 = 7;
const SEND_TIMEOUT: u32 = 8;
const NO_DELAY: u32 = 9;
const ERROR: u32 = 2;
const RESOLVED_MAX: usize = 64;
const BACKLOG: u32 = 128;

fn checked(result: i64) -> io::Result<u64> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result as i32))
    } else {
        Ok(result as u64)
    }
}

fn from_wasi(error: i32) -> io::Result<()> {
    checked(-i64::from(error)).map(drop)
}

impl RawAddress {
    fn new(from: &SocketAddr) -> RawAddress {
        let mut to = RawAddress { port: from.port(), ..RawAddress::default() };
        match from {
            SocketAddr::V4(four) => {
                to.family = INET4 as u16;
                to.address[..4].copy_from_slice(&four.ip().octets());
            }
            SocketAddr::V6(six) => {
                to.family = INET6 as u16;
                to.flow_info = six.flowinfo();
                to.scope_id = six.scope_id();
                to.address = six.ip().octets();
            }
        }
        to
    }
    fn socket_address(&self) -> SocketAddr {
        let a = self.address;
        if u32::from(self.family) == INET6 {
            SocketAddrV6::new(Ipv6Addr::from(a), self.port, self.flow_info, self.scope_id).into()
        } else {
            SocketAddrV4::new(Ipv4Addr::new(a[0], a[1], a[2], a[3]), self.port).into()
        }
    }
}

/// The addresses of a name, at most 64; of a number or "localhost" without asking anybody. At most 10 seconds.
pub fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    lookup_within(name, Duration::from_secs(10))
}

pub fn lookup_within(name: &str, time: Duration) -> io::Result<Vec<IpAddr>> {
    let mut found = [RawAddress::default(); RESOLVED_MAX];
    let ms = time.as_millis().min(u128::from(u32::MAX)) as u32;
    let count = checked(unsafe {
        raw::sock_resolve(name.as_ptr(), name.len() as u32, 0, found.as_mut_ptr(), RESOLVED_MAX as u32, ms)
    })?;
    Ok(found[..count as usize].iter().map(|address| address.socket_address().ip()).collect())
}

/// What a socket may be bound or connected to: "host:port", ("host", port), or an address.
pub trait Addresses {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>>;
}

impl Addresses for SocketAddr {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![*self])
    }
}

impl Addresses for (&str, u16) {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup(self.0)?.into_iter().map(|ip| SocketAddr::new(ip, self.1)).collect())
    }
}

impl Addresses for str {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        let parts = self.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an address is host:port"))?.addresses()
    }
}

impl Addresses for String {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().addresses()
    }
}

impl<T: Addresses + ?Sized> Addresses for &T {
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).addresses()
    }
}

// The first address that it works with; the last one's error.
fn first_of<T>(to: impl Addresses, f: impl Fn(&SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in to.addresses()? {
        match f(&address) {
            Ok(made) => return Ok(made),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[derive(Debug)]
struct Socket(u32);

impl Drop for Socket {
    fn drop(&mut self) {
        unsafe { raw::fd_close(self.0) };
    }
}

impl Socket {
    fn open(address: &SocketAddr, kind: u32) -> io::Result<Socket> {
        let family = if address.is_ipv4() { INET4 } else { INET6 };
        Ok(Socket(checked(unsafe { raw::sock_open(family, kind) })? as u32))
    }
    fn connect(&self, to: &SocketAddr) -> io::Result<()> {
        checked(unsafe { raw::sock_connect(self.0, &RawAddress::new(to)) }).map(drop)
    }
    fn bind(&self, to: &SocketAddr) -> io::Result<()> {
        checked(unsafe { raw::sock_bind(self.0, &RawAddress::new(to)) }).map(drop)
    }
    fn send(&self, bytes: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        let address = to.map(RawAddress::new);
        let at = address.as_ref().map_or(std::ptr::null(), |address| address as *const RawAddress);
        Ok(checked(unsafe { raw::sock_sendto(self.0, bytes.as_ptr(), bytes.len() as u32, 0, at) })? as usize)
    }
    fn receive(&self, to: &mut [u8], flags: u32) -> io::Result<usize> {
        let at = std::ptr::null_mut();
        Ok(checked(unsafe { raw::sock_recvfrom(self.0, to.as_mut_ptr(), to.len() as u32, flags, at) })? as usize)
    }
    fn receive_from(&self, to: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut from = RawAddress::default();
        let got = checked(unsafe { raw::sock_recvfrom(self.0, to.as_mut_ptr(), to.len() as u32, 0, &mut from) })?;
        Ok((got as usize, from.socket_address()))
    }
    fn own_address(&self) -> io::Result<SocketAddr> {
        let mut address = RawAddress::default();
        checked(unsafe { raw::sock_getsockname(self.0, &mut address) })?;
        Ok(address.socket_address())
    }
    fn peer_address(&self) -> io::Result<SocketAddr> {
        let mut address = RawAddress::default();
        checked(unsafe { raw::sock_getpeername(self.0, &mut address) })?;
        Ok(address.socket_address())
    }
    fn set(&self, option: u32, value: i64) -> io::Result<()> {
        checked(unsafe { raw::sock_setsockopt(self.0, option, value) }).map(drop)
    }
    // None: as long as the call may.
    fn set_timeout(&self, option: u32, time: Option<Duration>) -> io::Result<()> {
        let us = time.map_or(0, |time| time.as_micros().clamp(1, i64::MAX as u128) as i64);
        self.set(option, us)
    }
    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        const NONBLOCK: i32 = 4;
        from_wasi(unsafe { raw::fd_fdstat_set_flags(self.0, if nonblocking { NONBLOCK } else { 0 }) })
    }
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        let error = checked(unsafe { raw::sock_getsockopt(self.0, ERROR) })? as i32;
        Ok(if error == 0 { None } else { Some(io::Error::from_raw_os_error(error)) })
    }
}

/// A connection.
#[derive(Debug)]
pub struct TcpStream(Socket);

impl TcpStream {
    pub fn connect(to: impl Addresses) -> io::Result<TcpStream> {
        first_of(to, |address| {
            let socket = Socket::open(address, STREAM)?;
            socket.connect(address)?;
            Ok(TcpStream(socket))
        })
    }
    /// TimedOut where nobody has answered in that time.
    pub fn connect_timeout(to: &SocketAddr, time: Duration) -> io::Result<TcpStream> {
        const IN_PROGRESS: i32 = 26;
        let socket = Socket::open(to, STREAM)?;
        socket.set_timeout(SEND_TIMEOUT, Some(time))?;
        match socket.connect(to) {
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
            Ok(()) => {
                socket.set_timeout(SEND_TIMEOUT, None)?;
                Ok(TcpStream(socket))
            }
        }
    }
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_address()
    }
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.own_address()
    }
    /// Of each read; WouldBlock when it has passed.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(RECEIVE_TIMEOUT, time)
    }
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(SEND_TIMEOUT, time)
    }
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.set(NO_DELAY, i64::from(on))
    }
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }
    pub fn peek(&self, to: &mut [u8]) -> io::Result<usize> {
        self.0.receive(to, PEEK)
    }
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => 1,
            Shutdown::Write => 2,
            Shutdown::Both => 3,
        };
        from_wasi(unsafe { raw::sock_shutdown(self.0 .0, how) })
    }
    /// For poll_oneoff and the like; it stays this object's.
    pub fn descriptor(&self) -> u32 {
        self.0 .0
    }
}

impl Read for &TcpStream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.receive(to, 0)
    }
}
impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes, None)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Read for TcpStream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        (&*self).read(to)
    }
}
impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes connections.
#[derive(Debug)]
pub struct TcpListener(Socket);

impl TcpListener {
    pub fn bind(to: impl Addresses) -> io::Result<TcpListener> {
        first_of(to, |address| {
            let socket = Socket::open(address, STREAM)?;
            socket.set(REUSE_ADDRESS, 1)?;
            socket.bind(address)?;
            checked(unsafe { raw::sock_listen(socket.0, BACKLOG) })?;
            Ok(TcpListener(socket))
        })
    }
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let mut peer = RawAddress::default();
        let fd = checked(unsafe { raw::spore_sock_accept(self.0 .0, &mut peer) })?;
        Ok((TcpStream(Socket(fd as u32)), peer.socket_address()))
    }
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.own_address()
    }
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
    /// Of each accept; WouldBlock when it has passed.
    pub fn set_accept_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(RECEIVE_TIMEOUT, time)
    }
}

/// Sends and receives datagrams. One that is larger than the buffer is cut off.
#[derive(Debug)]
pub struct UdpSocket(Socket);

impl UdpSocket {
    pub fn bind(to: impl Addresses) -> io::Result<UdpSocket> {
        first_of(to, |address| {
            let socket = Socket::open(address, DATAGRAMS)?;
            socket.bind(address)?;
            Ok(UdpSocket(socket))
        })
    }
    pub fn connect(&self, to: impl Addresses) -> io::Result<()> {
        first_of(to, |address| self.0.connect(address))
    }
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes, None)
    }
    pub fn recv(&self, to: &mut [u8]) -> io::Result<usize> {
        self.0.receive(to, 0)
    }
    pub fn send_to(&self, bytes: &[u8], to: impl Addresses) -> io::Result<usize> {
        first_of(to, |address| self.0.send(bytes, Some(address)))
    }
    pub fn recv_from(&self, to: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.receive_from(to)
    }
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.own_address()
    }
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_address()
    }
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(RECEIVE_TIMEOUT, time)
    }
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}
