// Fetches http://HOST:PORT/PATH for "HOST PORT PATH" and writes the page to standard output.
#[path = "../../sdk/rust/spore_net.rs"]
mod spore_net;

use std::io::{self, Read, Write};

fn fetch(host: &str, port: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut server = spore_net::TcpStream::connect(format!("{}:{}", host, port))?;
    write!(server, "GET {} HTTP/1.0\r\nHost: {}\r\n\r\n", path, host)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer has no end of its head"))?;
    Ok(answer.split_off(end + 4))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() != 4 {
        eprintln!("usage: http HOST PORT PATH");
        std::process::exit(2);
    }
    match fetch(&arguments[1], &arguments[2], &arguments[3]) {
        Ok(page) => io::stdout().write_all(&page).unwrap(),
        Err(error) => {
            eprintln!("http: {}: {}", arguments[1], error);
            std::process::exit(1);
        }
    }
}
