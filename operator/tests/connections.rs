//! How the operator's connections to the API server are shared.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use saatkond_operator::client::{Hooks, connect};
use saatkond_operator::metrics::ApiRequests;
use saatkond_operator::watches::{Change, WatchSettings, follow};
use support::until;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

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

/// Watches of namespaces, until dropped.
struct Watching {
    _watches: JoinSet<()>,
    count: usize,
    listed: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
}

impl Watching {
    fn start(client: &Client, count: usize) -> Self {
        let (listed, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut watches = JoinSet::new();
        for _ in 0..count {
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
        Self { _watches: watches, count, listed, heard }
    }

    async fn all(&self, what: &str, bound: Duration, counter: &AtomicUsize) {
        until(what, bound, || async {
            let seen = counter.load(Ordering::SeqCst);
            if seen >= self.count { Ok(()) } else { Err(format!("{seen} of {}", self.count)) }
        })
        .await;
    }

    async fn have_listed(&self) {
        self.all("all have listed", Duration::from_secs(30), &self.listed).await;
    }

    async fn have_heard(&self) {
        self.all("all watches are open and hear of it", Duration::from_mins(1), &self.heard).await;
    }
}

/// How many connections 30 watches and a request beside them use, once all have heard of something, to an API server with this flag.
async fn connections_of_30_watches(flag: &str) -> usize {
    let bed = support::bed_with_flags(&[flag]);
    let config = bed.administrator().await;
    let port = config.cluster_url.port_u16().unwrap();
    let before = connections_to(port);
    let client = connect(config, ApiRequests::default(), Hooks::default()).unwrap();
    let watching = Watching::start(&client, 30);
    watching.have_listed().await;
    bed.apply(&support::namespace("news", None));
    watching.have_heard().await;
    // While all are held, other requests have a connection of their own.
    Api::<Namespace>::all(client.clone()).get("news").await.unwrap();
    connections_to(port) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_find_room_where_a_server_gives_a_connection_little() {
    let used = connections_of_30_watches("--http2-max-streams-per-connection=8").await;
    assert!((4..=8).contains(&used), "{used} connections for 30 watches, 8 to each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_http_1_alone_has_a_connection_for_each_watch() {
    let used = connections_of_30_watches("--disable-http2-serving").await;
    assert!(used >= 30, "{used} connections for 30 watches");
}

/// A way to an API server whose connections can be made to fall silent: they stay open, and nothing passes any more.
struct Way {
    port: u16,
    silenced: watch::Sender<u32>,
    _served: JoinHandle<()>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (silenced, signal) = watch::channel(0);
        let served = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut signal = signal.clone();
                signal.mark_unchanged();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        // Both ends are held, and not read.
                        _ = signal.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { port: own, silenced, _served: served }
    }

    /// Silences the connections there are; those that are opened from now on work.
    fn fall_silent(&self) {
        self.silenced.send_modify(|times| *times += 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fall_silent_are_given_up_and_opened_anew() {
    let bed = support::bed_with_flags(&[]);
    let mut config = bed.administrator().await;
    let way = Way::to(config.cluster_url.port_u16().unwrap()).await;
    config.cluster_url = format!("https://127.0.0.1:{}", way.port).parse().unwrap();
    let client = connect(config, ApiRequests::default(), Hooks::default()).unwrap();
    let namespaces = Api::<Namespace>::all(client.clone());
    let watching = Watching::start(&client, 3);
    watching.have_listed().await;
    bed.apply(&support::namespace("first", None));
    namespaces.get("first").await.unwrap();
    way.fall_silent();
    bed.apply(&support::namespace("news", None));
    // A request that waits on a silent connection ends, and the next goes through, long before kube's bound on reading (295 s).
    until("requests pass again", Duration::from_secs(30), || async {
        namespaces.get("news").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    // A watch that hears nothing cannot know that there is news; it finds out 45 s later, not when it would have ended (290 s).
    watching.have_heard().await;
}
