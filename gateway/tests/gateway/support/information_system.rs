//! An information system: it says back what it was asked, or what the path tells it to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }
}

#[derive(Clone)]
pub struct InformationSystem {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl InformationSystem {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let system = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let serving = system.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        system
    }

    /// What it was asked whose target holds `mark`.
    pub fn asked(&self, mark: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.target.contains(mark)).cloned().collect()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some(asked) = read(&mut stream, &mut bytes).await else { return };
            // Large bodies are counted, not kept: a test of memory runs in this process.
            let mut kept = asked.clone();
            kept.body.truncate(100_000);
            self.asked.lock().unwrap().push(kept);
            if !answer(&mut stream, &asked).await {
                return;
            }
        }
    }
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Asked> {
    loop {
        let mut slots = [httparse::EMPTY_HEADER; 300];
        let mut parsed = httparse::Request::new(&mut slots);
        if let httparse::Status::Complete(used) = parsed.parse(bytes).unwrap() {
            let mut asked = Asked {
                method: parsed.method.unwrap().to_owned(),
                target: parsed.path.unwrap().to_owned(),
                headers: parsed.headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect(),
                body: Vec::new(),
            };
            let length = asked.all("content-length").first().map_or(0, |text| text.parse().unwrap());
            let mut rest = bytes.split_off(used);
            if asked.target.contains("/sink") {
                // Counts without keeping.
                let mut left = length - rest.len();
                let mut waste = vec![0; 64 << 10];
                while left > 0 {
                    let count = stream.read(&mut waste).await.ok()?;
                    if count == 0 {
                        return None;
                    }
                    left -= count;
                }
                asked.headers.push(("x-sunk".into(), length.to_string().into_bytes()));
                rest.clear();
            } else {
                while rest.len() < length {
                    if stream.read_buf(&mut rest).await.ok()? == 0 {
                        return None;
                    }
                }
            }
            *bytes = rest.split_off(rest.len().min(length));
            asked.body = rest;
            return Some(asked);
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn echo(asked: &Asked) -> Value {
    let headers: Vec<_> = asked.headers.iter().map(|(n, v)| json!([n, String::from_utf8_lossy(v)])).collect();
    let body = String::from_utf8_lossy(&asked.body[..asked.body.len().min(100_000)]).into_owned();
    json!({"method": asked.method, "target": asked.target, "headers": headers, "body": body, "length": asked.body.len()})
}

/// Answers; whether the connection stays open.
async fn answer(stream: &mut TcpStream, asked: &Asked) -> bool {
    let path = asked.target.split('?').next().unwrap();
    let path = ["/v2", "/A", "/B"].iter().find_map(|base| path.strip_prefix(base)).unwrap_or(path);
    let is_head = asked.method == "HEAD";
    let simple = |status: &str, headers: &str, body: &[u8]| {
        let mut out = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        if !is_head {
            out.extend_from_slice(body);
        }
        out
    };
    let json = "Content-Type: application/json\r\n";
    let out = match path {
        "/status/405" => simple("405 Method Not Allowed", json, br#"{"own":"405"}"#),
        "/status/500" => simple("500 Internal Server Error", json, b"{}"),
        "/status/302" => simple("302 Found", "Location: http://elsewhere/x\r\n", b""),
        "/status/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/status/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n".to_vec(),
        "/fake" => {
            let fake = ["Id", "Client", "Service", "Request-Id", "Request-Hash", "Error"];
            let fake = fake.map(|name| format!("X-Road-{name}: fake\r\n")).concat();
            simple("200 OK", &format!("{fake}Server: x\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\nKeep-Alive: 7\r\n"), b"x")
        }
        "/cookie" => simple("200 OK", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", b"x"),
        "/cache" => simple("200 OK", "Cache-Control: no-store\r\nETag: \"1\"\r\n", b"x"),
        "/gzip" => simple("200 OK", "Content-Encoding: gzip\r\nContent-Type: text/plain\r\n", b"\x1f\x8b not really gzip"),
        "/long-headers" => {
            let long = (0..20).map(|n| format!("X-Long-{n}: {}\r\n", "y".repeat(1000))).collect::<Vec<_>>().concat();
            simple("200 OK", &long, b"x")
        }
        "/too-long-headers" => {
            let long = (0..100).map(|n| format!("X-Long-{n}: {}\r\n", "y".repeat(1000))).collect::<Vec<_>>().concat();
            simple("200 OK", &long, b"x")
        }
        "/length" => simple("200 OK", "", &vec![b'x'; 1234]),
        "/silent" => std::future::pending().await,
        "/stuck" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n").await;
            let _ = stream.write_all(&vec![b's'; 200_000]).await;
            std::future::pending().await
        }
        "/drip" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
            for byte in b"drips" {
                tokio::time::sleep(Duration::from_millis(400)).await;
                let _ = stream.write_all(&[*byte]).await;
            }
            return true;
        }
        "/half" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
            return false;
        }
        "/half-of-much" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n").await;
            let _ = stream.write_all(&vec![b'h'; 3_000_000]).await;
            return false;
        }
        "/garbage" => {
            let _ = stream.write_all(b"this is no HTTP\r\n\r\n").await;
            return false;
        }
        "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n".to_vec(),
        _ => match path.strip_prefix("/bytes/").and_then(|count| count.parse::<usize>().ok()) {
            Some(count) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {count}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let piece = pattern(64 << 10);
                let mut left = count;
                while left > 0 {
                    let now = left.min(piece.len());
                    if stream.write_all(&piece[..now]).await.is_err() {
                        return false;
                    }
                    left -= now;
                }
                return true;
            }
            None => simple("200 OK", json, echo(asked).to_string().as_bytes()),
        },
    };
    stream.write_all(&out).await.is_ok()
}

/// The bytes of `/bytes/N`, repeated every 64 KiB.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % (64 << 10) % 251).unwrap()).collect()
}
