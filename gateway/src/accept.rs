//! Accepting connections, on each port alike.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::state::chain;

/// Out of file handles, most likely: without a pause the loop would spin until some have been given back.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection; `None` once `closing` is cancelled. What fails is logged under the name of the `port` and tried again.
pub async fn next(listener: &TcpListener, port: &'static str, closing: &CancellationToken) -> Option<TcpStream> {
    next_of(|| listener.accept(), port, closing).await.map(|(stream, _)| stream)
}

async fn next_of<T, F: Future<Output = io::Result<T>>>(
    mut accept: impl FnMut() -> F,
    port: &'static str,
    closing: &CancellationToken,
) -> Option<T> {
    let accepting = async {
        loop {
            match accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    warn!(port, error = chain(&error), "failed to accept a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        // Asked first: whoever is closing takes nothing more, also when somebody waits.
        biased;
        () = closing.cancelled() => None,
        accepted = accepting => Some(accepted),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_failure_is_tried_again_after_a_pause() {
        let (mut attempts, started) = (0, Instant::now());
        let accept = || {
            attempts += 1;
            ready(if attempts < 3 { Err(io::Error::from_raw_os_error(24)) } else { Ok("connection") })
        };
        assert_eq!(next_of(accept, "test", &CancellationToken::new()).await, Some("connection"));
        assert_eq!(attempts, 3);
        assert!(started.elapsed() >= 2 * PAUSE, "it would spin");
    }

    #[tokio::test]
    async fn closing_ends_the_wait_and_the_pause() {
        for is_failing in [false, true] {
            let closing = CancellationToken::new();
            let accept = || async move {
                if is_failing { Err::<(), _>(io::Error::from_raw_os_error(24)) } else { pending().await }
            };
            let (accepted, ()) = tokio::join!(next_of(accept, "test", &closing), async { closing.cancel() });
            assert_eq!(accepted, None);
        }
    }

    #[tokio::test]
    async fn who_is_closing_takes_nothing_more() {
        let closing = CancellationToken::new();
        closing.cancel();
        assert_eq!(next_of(|| ready(Ok(())), "test", &closing).await, None);
    }
}
