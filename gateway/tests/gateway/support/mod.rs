//! A federation on loopback.

pub mod alone;
pub mod base;
pub mod federation;
pub mod http;
pub mod information_system;
pub mod link;
pub mod log;
pub mod pair;
pub mod rogue;

use std::time::{Duration, Instant};

/// Waits until `condition` holds; fails with `what` and `state` when it does not in time.
pub async fn eventually<S: std::fmt::Debug>(
    what: &str,
    state: impl Fn() -> S,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}; {:?}", state());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
