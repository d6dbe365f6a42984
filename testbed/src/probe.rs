//! What test pods run. The testbed program is static, so it is a whole image by itself.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use crate::{Result, error::Doing as _};

const PATIENCE: Duration = Duration::from_secs(3);

/// Writes `text` to `file`, then answers every request with what is in `file`.
pub fn serve(port: u16, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).doing(|| format!("write {}", file.display()))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).doing(|| format!("listen on port {port}"))?;
    for connection in listener.incoming() {
        // Who asks may go away in the middle; the next is answered all the same.
        let _ = connection.and_then(|connection| answer(connection, file));
    }
    Ok(())
}

fn answer(mut connection: TcpStream, file: &Path) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; 4096];
    let _ = connection.read(&mut request)?;
    let body = fs::read_to_string(file)?;
    write!(connection, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What `HOST:PORT` answers to `GET /`.
pub fn fetch(address: &str) -> Result<String> {
    let what = || format!("fetch {address}");
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket in address.to_socket_addrs().doing(what)? {
        match TcpStream::connect_timeout(&socket, PATIENCE) {
            Ok(mut connection) => {
                connection.set_read_timeout(Some(PATIENCE)).doing(what)?;
                connection.write_all(b"GET / HTTP/1.0\r\n\r\n").doing(what)?;
                let mut answer = String::new();
                connection.read_to_string(&mut answer).doing(what)?;
                let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                return Ok(body.to_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last).doing(what)
}
