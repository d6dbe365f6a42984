//! The operator's link, as far as a gateway sees it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use saatkond_pki::leaf::Usage;
use saatkond_pki::pem;
use saatkond_wire::leaf_name::LeafName;
use saatkond_wire::link::{GOODBYE_PATH, Goodbye, POLL_PATH, Poll, PollAnswer, Told};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::federation::{Federation, INSTANCE, issue};

#[derive(Clone, Default)]
struct Published {
    instance: Option<(Vec<u8>, u64)>,
    server: Option<(Vec<u8>, u64)>,
    issue_number: u64,
    is_forgetful: bool,
}

pub struct FakeLink {
    address: SocketAddr,
    published: watch::Sender<Published>,
    polls: Arc<Mutex<Vec<Poll>>>,
    goodbyes: Arc<Mutex<Vec<u64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeLink {
    pub async fn start(federation: &Federation, issue_number: u64) -> Self {
        let name = LeafName::Link { instance: INSTANCE.into() };
        let dns = ["inst.link.saatkond.internal"];
        let life = SignedDuration::from_hours(1);
        let (leaf, key) = issue(&federation.authority, Usage::Link, &name, &dns, Timestamp::now(), life);
        let chain = vec![CertificateDer::from(pem::single(&leaf, pem::CERTIFICATE).unwrap().to_vec())];
        let mut config = rustls::ServerConfig::builder_with_provider(saatkond_gateway::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (published, _) = watch::channel(Published { issue_number, ..Published::default() });
        let (polls, goodbyes) = (Arc::<Mutex<Vec<Poll>>>::default(), Arc::<Mutex<Vec<u64>>>::default());
        let shared = (published.clone(), polls.clone(), goodbyes.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(shared.clone(), request));
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, published, polls, goodbyes, task }
    }

    pub fn url(&self) -> url::Url {
        format!("https://{}", self.address).parse().unwrap()
    }

    pub fn publish(&self, packed: Vec<u8>, version: u64) {
        self.published.send_modify(|published| published.instance = Some((packed, version)));
    }

    pub fn publish_server(&self, packed: Vec<u8>, version: u64) {
        self.published.send_modify(|published| published.server = Some((packed, version)));
    }

    /// A leaf has been stored for the server.
    pub fn issue(&self, issue_number: u64) {
        self.published.send_modify(|published| published.issue_number = issue_number);
    }

    /// From now on every poll ends at once that is behind, whatever it says that it was told.
    pub fn forget_what_was_told(&self) {
        self.published.send_modify(|published| published.is_forgetful = true);
    }

    pub fn polls(&self) -> Vec<Poll> {
        self.polls.lock().unwrap().clone()
    }

    pub fn goodbyes(&self) -> Vec<u64> {
        self.goodbyes.lock().unwrap().clone()
    }
}

type Shared = (watch::Sender<Published>, Arc<Mutex<Vec<Poll>>>, Arc<Mutex<Vec<u64>>>);

async fn answer(
    (published, polls, goodbyes): Shared,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    if path == GOODBYE_PATH {
        goodbyes.lock().unwrap().push(serde_json::from_slice::<Goodbye>(&bytes).unwrap().process.incarnation);
        return Ok(Response::new(Full::new(Bytes::from_static(b"{}"))));
    }
    assert_eq!(path, POLL_PATH);
    let poll: Poll = serde_json::from_slice(&bytes).unwrap();
    polls.lock().unwrap().push(poll.clone());
    let mut changes = published.subscribe();
    let newer = |published: &Published| {
        let version = |part: &Option<(Vec<u8>, u64)>| part.as_ref().map_or(0, |(_, version)| *version);
        let now = Told {
            instance_version: version(&published.instance),
            server_version: version(&published.server),
            issue_number: published.issue_number,
        };
        let poll = Poll { told: if published.is_forgetful { Told::default() } else { poll.told }, ..poll.clone() };
        poll.is_news(&now)
    };
    let wait = Duration::from_secs(poll.wait_seconds.into());
    let _ = tokio::time::timeout(wait, changes.wait_for(newer)).await;
    let now = published.borrow().clone();
    let part = |part: &Option<(Vec<u8>, u64)>, have: u64| {
        let version = part.as_ref().map_or(0, |(_, version)| *version);
        (version, part.clone().filter(|(_, version)| *version > have).map(|(packed, _)| packed))
    };
    let (instance_version, instance) = part(&now.instance, poll.have_instance_version);
    let (server_version, server) = part(&now.server, poll.have_server_version);
    let answer =
        PollAnswer { format: 1, instance_version, server_version, issue_number: now.issue_number, instance, server };
    Ok(Response::new(Full::new(serde_json::to_vec(&answer).unwrap().into())))
}
