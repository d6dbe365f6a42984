//! Peers that do as a test says: a client and a server of port 5500 that check nothing themselves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use saatkond_gateway::frames::{Event, Reader, body_frames, frame};
use saatkond_gateway::request::headers::Line;
use saatkond_gateway::request::rest_part::RequestPart;
use saatkond_pki::authority::Authority;
use saatkond_pki::evidence::{self, MessageDigests, SigningCredential};
use saatkond_pki::key::KeyPair;
use saatkond_pki::leaf::Usage;
use saatkond_pki::pem;
use saatkond_wire::exchange::{CONTENT_TYPE, EXCHANGE_PATH, Kind};
use saatkond_wire::identifier::{ClientId, MemberId, ServerId};
use saatkond_wire::leaf_name::LeafName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::federation::issue;

pub type Leaf = (String, KeyPair);

pub fn authentication(authority: &Authority, server: &ServerId) -> Leaf {
    numbered_authentication(authority, server, 1)
}

pub fn numbered_authentication(authority: &Authority, server: &ServerId, number: u64) -> Leaf {
    let name = LeafName::Authentication { server: server.clone(), issue: number };
    issue(authority, Usage::Authentication, &name, &["x.example"], Timestamp::now(), SignedDuration::from_hours(1))
}

pub fn signing(authority: &Authority, member: &MemberId, server: &ServerId) -> SigningCredential {
    numbered_signing(authority, member, server, 1)
}

pub fn numbered_signing(authority: &Authority, member: &MemberId, server: &ServerId, number: u64) -> SigningCredential {
    let name = LeafName::Signing { member: member.clone(), server: server.clone(), issue: number };
    let (leaf, key) = issue(authority, Usage::Signing, &name, &[], Timestamp::now(), SignedDuration::from_hours(1));
    SigningCredential::from_pem(&leaf, &key.to_pkcs8_pem()).unwrap()
}

fn der(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from(pem::single(&leaf.0, pem::CERTIFICATE).unwrap().to_vec())];
    (chain, PrivatePkcs8KeyDer::from(leaf.1.pkcs8_der().to_vec()).into())
}

/// Accepts every certificate.
#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

mod trusting {
    use super::Trusting;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
    use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

    impl ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    impl ClientCertVerifier for Trusting {
        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            &[]
        }
        fn verify_client_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: UnixTime,
        ) -> Result<ClientCertVerified, Error> {
            Ok(ClientCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

/// A client of port 5500.
pub struct Client(hyper::client::conn::http2::SendRequest<BoxBody<Bytes, Infallible>>);

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub events: Vec<Event>,
}

impl Answer {
    /// The type of the fault that it ends with.
    pub fn fault(&self) -> &str {
        match self.events.last() {
            Some(Event::Fault(fault)) => &fault.kind,
            other => panic!("no fault: {other:?}"),
        }
    }
}

/// A TLS connection to port 5500, with a leaf or without any.
pub async fn tls(
    address: SocketAddr,
    leaf: Option<&Leaf>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = saatkond_gateway::tls::provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    let mut config = match leaf {
        Some(leaf) => {
            let (chain, key) = der(leaf);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("x.example").unwrap();
    let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
    connecting.await.map_err(|error| error.to_string())
}

impl Client {
    /// With a leaf, or without any.
    pub async fn connect(address: SocketAddr, leaf: Option<&Leaf>) -> Result<Self, String> {
        let stream = tls(address, leaf).await?;
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request whose answer the caller may leave unread.
    pub async fn begin(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, String> {
        self.request(method, path, kind, Full::new(Bytes::from(body)).boxed()).await
    }

    async fn request(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: BoxBody<Bytes, Infallible>,
    ) -> Result<Response<Incoming>, String> {
        let request = Request::builder().method(method).uri(format!("https://x{path}")).header("content-type", kind);
        self.0.send_request(request.body(body).unwrap()).await.map_err(|error| error.to_string())
    }

    pub async fn send(&mut self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer, String> {
        Self::answered(self.begin(method, path, kind, body).await?).await
    }

    async fn answered(response: Response<Incoming>) -> Result<Answer, String> {
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut reader = Reader::default();
        reader.push(bytes);
        let mut events = Vec::new();
        while let Ok(Some(event)) = reader.next_event() {
            events.push(event);
        }
        Ok(Answer { status, events })
    }

    pub async fn exchange(&mut self, body: Vec<u8>) -> Result<Answer, String> {
        self.send("POST", EXCHANGE_PATH, CONTENT_TYPE, body).await
    }

    /// The same with a body that comes in pieces.
    pub async fn exchange_streamed(
        &mut self,
        pieces: impl Stream<Item = Bytes> + Send + Sync + 'static,
    ) -> Result<Answer, String> {
        let body = BoxBody::new(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))));
        Self::answered(self.request("POST", EXCHANGE_PATH, CONTENT_TYPE, body).await?).await
    }
}

/// The REST part of a request.
pub fn rest(method: &'static str, path: &str, client: &ClientId) -> Bytes {
    let headers = vec![
        Line::new("X-Road-Client", client.to_string()),
        Line::new("x-road-request-id", uuid::Uuid::new_v4().to_string()),
        Line::new("x-road-id", "rogue"),
    ];
    RequestPart { method, path: path.into(), query: None, headers }.encode()
}

/// A whole request.
pub fn signed(rest: &[u8], body: &[u8], signer: &SigningCredential) -> Vec<u8> {
    whole(rest, body, &MessageDigests::of_request(rest, (!body.is_empty()).then_some(body)), signer)
}

/// A whole answer.
pub fn signed_answer(rest: &[u8], body: &[u8], signer: &SigningCredential) -> Vec<u8> {
    whole(rest, body, &MessageDigests::of_answer(rest, (!body.is_empty()).then_some(body)), signer)
}

fn whole(rest: &[u8], body: &[u8], digests: &MessageDigests, signer: &SigningCredential) -> Vec<u8> {
    let signature = evidence::sign(digests, signer, Timestamp::now()).unwrap();
    unsigned(rest, body).into_iter().chain(frame(Kind::Signature, &signature)).collect()
}

/// An answer under the signature of a batch of two: its own, or that of the other.
pub fn batched(rest: &[u8], body: &[u8], signer: &SigningCredential, is_own: bool) -> Vec<u8> {
    let (own, other) = (MessageDigests::of_answer(rest, Some(body)), MessageDigests::of_answer(b"other", None));
    let mut signatures = evidence::sign_batch(&[&own, &other], signer, Timestamp::now()).unwrap();
    let signature = signatures.swap_remove(usize::from(!is_own));
    unsigned(rest, body).into_iter().chain(frame(Kind::Signature, &signature)).collect()
}

/// A message that ends before its signature.
pub fn unsigned(rest: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = frame(Kind::Rest, rest).to_vec();
    body_frames(Bytes::copy_from_slice(body)).for_each(|piece| out.extend_from_slice(&piece));
    out
}

/// How a server of port 5500 ends a request without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnsAway {
    /// Says of the request that it was not processed.
    Refused,
    /// Leaves, and says that it has processed nothing.
    Leaving,
    /// Breaks off without a word about what it has done.
    Broken,
}

/// A server of port 5500 that answers nothing.
pub async fn turn_away(address: SocketAddr, leaf: &Leaf, how: TurnsAway) -> tokio::task::JoinHandle<()> {
    let acceptor = acceptor(leaf);
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        // They end with it.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            connections.spawn(async move {
                if how == TurnsAway::Leaving {
                    // Reads on until the other side closes: closed with requests unread, a socket is reset, and what was
                    // sent before may be lost with it.
                    let _ = stream.write_all(LEAVING).await;
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    return;
                }
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(match how {
                        TurnsAway::Refused | TurnsAway::Leaving => h2::Reason::REFUSED_STREAM,
                        TurnsAway::Broken => h2::Reason::INTERNAL_ERROR,
                    });
                }
            });
        }
    })
}

/// Two frames of HTTP/2 (RFC 9113 sections 6.5 and 6.8): empty SETTINGS, then GOAWAY without an error, no stream taken.
const LEAVING: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn acceptor(leaf: &Leaf) -> tokio_rustls::TlsAcceptor {
    let provider = saatkond_gateway::tls::provider();
    let (chain, key) = der(leaf);
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Trusting(provider)))
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A server of port 5500 that answers what `answer` makes of the REST part.
pub async fn serve<F>(address: SocketAddr, leaf: &Leaf, answer: F)
where
    F: Fn(&[u8]) -> (StatusCode, &'static str, Vec<u8>) + Send + Sync + 'static,
{
    let acceptor = acceptor(leaf);
    let listener = TcpListener::bind(address).await.unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let bytes = request.into_body().collect().await.unwrap().to_bytes();
                        let mut reader = Reader::default();
                        reader.push(bytes);
                        let Ok(Some(Event::Rest(rest))) = reader.next_event() else { panic!("no REST part") };
                        let (status, kind, body) = answer(&rest);
                        let response = Response::builder().status(status).header("content-type", kind);
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}
