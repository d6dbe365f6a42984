//! Bounded memory: 100 MiB each way, with the resident memory of the whole process (both gateways, the caller and the information
//! system are in it) growing by less than 32 MiB.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http::request;
use crate::support::pair::{PETS, Pair};

const LENGTH: usize = 100 << 20;
const CLIENT: (&str, &str) = ("X-Road-Client", "INST/GOV/200/CONS");

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Runs in a process of its own: other tests of this binary would be measured too.
#[tokio::test]
async fn a_hundred_mebibytes_each_way() {
    const NAME: &str = "memory::a_hundred_mebibytes_each_way";
    if std::env::var_os("SAATKOND_TEST_ALONE").is_none() {
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("SAATKOND_TEST_ALONE", "1")
            .output()
            .await
            .unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
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
