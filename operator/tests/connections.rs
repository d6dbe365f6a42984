//! How the operator's connections to the API server are shared.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::Api;
use saatkond_operator::client::{Hooks, connect};
use saatkond_operator::metrics::ApiRequests;
use saatkond_operator::watches::{Change, WatchSettings, follow};
use support::until;
use tokio::task::JoinSet;

const WATCHES: usize = 30;

/// Connections of this process to a port of this machine.
fn connections_to(port: u16) -> usize {
    let mine: BTreeSet<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2].ends_with(&format!(":{port:04X}")) && mine.contains(&format!("socket:[{}]", row[9])))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_find_room_where_a_server_gives_a_connection_little() {
    let bed = support::bed_with_flags(&["--http2-max-streams-per-connection=8"]);
    let config = bed.administrator().await;
    let port = config.cluster_url.port_u16().unwrap();
    let before = connections_to(port);
    let client = connect(config, ApiRequests::default(), Hooks::default()).unwrap();
    let (listed, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut watches = JoinSet::new();
    for _ in 0..WATCHES {
        let (api, listed, heard) = (Api::<Namespace>::all(client.clone()), listed.clone(), heard.clone());
        watches.spawn(async move {
            let settings = WatchSettings::default();
            let on = move |change| match change {
                Change::All(_) => _ = listed.fetch_add(1, Ordering::SeqCst),
                Change::There(namespace) if Namespace::name_any(&namespace) == "news" => {
                    heard.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            };
            follow(api, settings.config(None), on, |_| {}).await;
        });
    }
    let all = |count: Arc<AtomicUsize>| {
        move || {
            let seen = count.load(Ordering::SeqCst);
            async move { if seen >= WATCHES { Ok(()) } else { Err(format!("{seen} of {WATCHES}")) } }
        }
    };
    until("all have listed", Duration::from_secs(30), all(listed)).await;
    bed.apply(&support::namespace("news", None));
    until("all watches are open and hear of it", Duration::from_mins(1), all(heard)).await;
    // While all are held, other requests have a connection of their own.
    Api::<Namespace>::all(client.clone()).get("news").await.unwrap();
    let used = connections_to(port) - before;
    assert!((4..=8).contains(&used), "{used} connections for {WATCHES} watches, 8 to each");
}
