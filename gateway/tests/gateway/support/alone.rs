//! Tests that measure their process, or count what goes wrong in it: each in one of its own, since other tests of this binary would be
//! measured too.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether this process runs the test `name` alone. If not, such a process has been started, and has passed.
pub async fn is_alone(name: &str) -> bool {
    if std::env::var_os("SAATKOND_TEST_ALONE").is_some() {
        return true;
    }
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("SAATKOND_TEST_ALONE", "1")
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "no test is named {name}");
    false
}

/// The resident memory of this process.
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Counts panics from now on, also those of tasks that nobody waits for: they end a connection, and no test.
pub fn count_panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    &PANICS
}
