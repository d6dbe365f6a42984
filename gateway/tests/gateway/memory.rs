//! Bounded memory: 100 MiB each way, with the resident memory of the whole process (both gateways, the caller and the information
//! system are in it) growing by less than 32 MiB.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::alone::{is_alone, resident};
use crate::support::eventually;
use crate::support::http::request;
use crate::support::pair::{PETS, Pair};

const LENGTH: usize = 100 << 20;
const CLIENT: (&str, &str) = ("X-Road-Client", "INST/GOV/200/CONS");

#[tokio::test]
async fn a_hundred_mebibytes_each_way() {
    if !is_alone("memory::a_hundred_mebibytes_each_way").await {
        return;
    }
    let pair = Pair::start().await;
    // Everything that is made once is made by a small call each way.
    assert_eq!(pair.post(&format!("{PETS}/sink"), &vec![1; 300_000]).await.status, 200);
    assert_eq!(pair.call(&format!("{PETS}/bytes/3000000")).await.status, 200);
    let before = resident();
    let (sender, mut stop) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(async move {
        let mut peak = 0;
        while stop.try_recv().is_err() {
            peak = peak.max(resident());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        peak
    });
    let mut stream = TcpStream::connect(pair.ss2.client).await.unwrap();
    let length = LENGTH.to_string();
    let head = request("POST", &format!("{PETS}/sink"), &[CLIENT, ("Content-Length", &length)], None);
    stream.write_all(&head).await.unwrap();
    let piece = vec![7; 64 << 10];
    for _ in 0..LENGTH / piece.len() {
        stream.write_all(&piece).await.unwrap();
    }
    let response = crate::support::http::read(&mut stream, false).await.unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(pair.system.asked("/sink").last().unwrap().all("x-sunk"), [length]);
    assert_eq!(std::fs::read_dir(pair.ss1.dir.join("spool")).unwrap().count(), 0);

    stream
        .write_all(&request("GET", &format!("{PETS}/bytes/{LENGTH}"), &[CLIENT, ("Connection", "close")], None))
        .await
        .unwrap();
    let (mut total, mut buffer) = (0, vec![0; 64 << 10]);
    let mut end = Vec::new();
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        total += count;
        end = buffer[..count].to_vec();
    }
    assert!(total > LENGTH && end.ends_with(b"0\r\n\r\n"), "{total} bytes");
    sender.send(()).unwrap();
    let grown = watching.await.unwrap().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {} KiB", grown >> 10);
}

/// Callers that send all but the last byte of a short body, and then nothing.
#[tokio::test]
async fn many_slow_bodies() {
    const LIMIT: u64 = 64 << 20;
    const SHORT: usize = 64 << 10;
    if !is_alone("memory::many_slow_bodies").await {
        return;
    }
    let mut pair = Pair::declare().await;
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.start_with(&mut pair.ss2, |settings| settings.memory_limit = Some(LIMIT)).await;
    assert_eq!(pair.post(PETS, &vec![1; SHORT]).await.status, 200);
    let before = resident();
    let length = SHORT.to_string();
    let mut bytes = request("POST", &format!("{PETS}/slow"), &[CLIENT, ("Content-Length", &length)], None);
    bytes.resize(bytes.len() + SHORT - 1, b'x');
    let bytes: std::sync::Arc<[u8]> = bytes.into();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..1500 {
        let (address, bytes) = (pair.ss2.client, bytes.clone());
        callers.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&bytes).await?;
            // Open for as long as the test is.
            stream.read_u8().await
        });
    }
    let context = &pair.ss2.gateway.as_ref().unwrap().context;
    let bound = context.capacity.held;
    assert!(bound <= LIMIT / 4);
    // Until nothing more comes: whoever could be taken has been.
    let (mut last, mut same) = (0, 0);
    let settled = async || {
        let total = context.held.total();
        same = if total == last { same + 1 } else { 0 };
        last = total;
        total > bound / 4 * 3 && same > 50
    };
    eventually("all that there is room for is held", || context.held.total(), settled).await;
    let grown = resident().saturating_sub(before);
    // What is held, a read buffer for each that is served, and what the other half of this process needs for them.
    assert!(grown < 32 << 20, "grew by {} KiB", grown >> 10);
    callers.shutdown().await;
    eventually("given back", || context.held.total(), async || context.held.total() == 0).await;
    assert_eq!(pair.call(PETS).await.status, 200);
}
