// The Rust binding of sockets: "HOST PORT UDP_PORT", with servers of network_test.cc there, and its resolver.
#[path = "../../../sdk/rust/spore_net.rs"]
mod spore_net;

use spore_net::{lookup, lookup_within, TcpListener, TcpStream, UdpSocket};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

macro_rules! check {
    ($holds:expr) => {
        if !$holds {
            eprintln!("line {}: {} does not hold", line!(), stringify!($holds));
            std::process::exit(100);
        }
    };
}

fn http(host: &str, port: u16) {
    let mut server = TcpStream::connect((host, port)).unwrap();
    server.set_nodelay(true).unwrap();
    check!(server.peer_addr().unwrap().port() == port);
    write!(server, "GET /hello HTTP/1.0\r\nHost: {}\r\n\r\n", host).unwrap();
    let mut page = String::new();
    server.read_to_string(&mut page).unwrap();
    check!(page.starts_with("HTTP/1.0 200 "));
    print!("{}", page.split_once("\r\n\r\n").unwrap().1);
}

fn datagrams(host: &str, port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    check!(socket.send_to(b"to you", (host, port)).unwrap() == 6);
    let mut bytes = [0; 64];
    let (size, from) = socket.recv_from(&mut bytes).unwrap();
    check!(&bytes[..size] == b"to you" && from.port() == port);
    socket.connect((host, port)).unwrap();
    check!(socket.peer_addr().unwrap() == from);
    check!(socket.send(b"again").unwrap() == 5 && socket.recv(&mut bytes).unwrap() == 5);
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let began = Instant::now();
    check!(socket.recv(&mut bytes).unwrap_err().kind() == ErrorKind::WouldBlock);
    check!(began.elapsed() >= Duration::from_millis(19));
}

fn own_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    check!(peer == client.local_addr().unwrap() && server.local_addr().unwrap() == address);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = [0; 3];
    check!(server.peek(&mut text).unwrap() == 3 && &text == b"que");
    let mut all = Vec::new();
    server.read_to_end(&mut all).unwrap();
    check!(all == b"question");
    server.write_all(b"answer").unwrap();
    drop(server);
    all.clear();
    client.read_to_end(&mut all).unwrap();
    check!(all == b"answer");
    listener.set_nonblocking(true).unwrap();
    check!(listener.accept().unwrap_err().kind() == ErrorKind::WouldBlock);
    drop(listener);
    check!(TcpStream::connect(address).unwrap_err().kind() == ErrorKind::ConnectionRefused);
    check!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
}

fn names() {
    let mut found: Vec<String> = lookup("good.test").unwrap().iter().map(|ip| ip.to_string()).collect();
    found.sort();
    check!(found == ["192.0.2.1", "fd00::1"]);
    check!(lookup("nobody.test").unwrap_err().kind() == ErrorKind::NotFound);
    check!(lookup("not a name").unwrap_err().kind() == ErrorKind::InvalidInput);
    let silent = lookup_within("silent.test", Duration::from_millis(50)).unwrap_err();
    check!(silent.kind() == ErrorKind::TimedOut);
    check!(TcpStream::connect("good.test").unwrap_err().kind() == ErrorKind::InvalidInput);
    check!(TcpStream::connect("[::1]").is_err());
    check!("[::1]:80".parse::<SocketAddr>().is_ok());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let port = |i: usize| arguments[i].parse::<u16>().unwrap();
    http(&arguments[1], port(2));
    datagrams(&arguments[1], port(3));
    own_server();
    names();
}
