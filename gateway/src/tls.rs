//! TLS between gateways and towards the link, made whole for each bundle and leaf.
//!
//! A change of either makes a new object: new verifiers, new server and client configurations, a new pool. Nothing is mutated
//! and nothing is resumed: a resumed session would carry a peer past a bundle that no longer holds its authority (RFC 8446 4.6.1
//! tickets keep the chain without asking again). Connections are long-lived and pooled, so a full handshake costs nothing.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use saatkond_pki::bundle::Bundle;
use saatkond_pki::verify::{Usage, VerifyError, verify_leaf};
use saatkond_wire::configuration::InstanceConfiguration;
use saatkond_wire::leaf_name::LeafName;
use saatkond_wire::link;
use tracing::warn;

use crate::metrics::Metrics;
use crate::peer::pool::Pool;
use crate::state::identity::{OwnIdentity, name_of};
use crate::state::in_force::{NOT_ISSUED, chain_label};
use crate::state::issued::Issued;

/// The protocol negotiated between gateways and with the link.
const ALPN: &[u8] = b"h2";

/// TLS of one bundle and leaf.
pub struct Tls {
    /// For port 5500.
    pub server: Arc<ServerConfig>,
    /// For calls to the link.
    pub link: Arc<ClientConfig>,
    /// For asking peers for their document, before anything is trusted: documents are signed, the channel needs no trust.
    pub untrusting: Arc<ClientConfig>,
    /// Connections to other gateways.
    pub pool: Pool,
}

impl Tls {
    /// Makes it. Fails when the leaf's key is unusable.
    pub fn new(
        identity: &OwnIdentity,
        bundle: &Arc<Bundle>,
        issued: Option<&Arc<Issued>>,
        instance: &InstanceConfiguration,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = identity.authentication.chain.clone();
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.authentication.key.pkcs8_der().to_vec()));
        let verifier = |expects| {
            Arc::new(Verifier {
                bundle: bundle.clone(),
                issued: issued.cloned(),
                expects,
                algorithms: provider.signature_verification_algorithms,
                metrics: metrics.clone(),
            })
        };
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier(Expects::Gateway))
            .with_single_cert(chain.clone(), key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let client = |expects| -> Result<Arc<ClientConfig>, rustls::Error> {
            let mut config = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(verifier(expects))
                .with_client_auth_cert(chain.clone(), key())?;
            config.alpn_protocols = vec![ALPN.to_vec()];
            config.resumption = rustls::client::Resumption::disabled();
            Ok(Arc::new(config))
        };
        let link_name = link::server_name(&instance.trust_anchor);
        Ok(Self {
            server: Arc::new(server),
            link: client(Expects::Link { instance: instance.instance.clone(), dns_name: link_name })?,
            untrusting: client(Expects::Anybody)?,
            pool: Pool::new(client(Expects::Gateway)?),
        })
    }
}

/// Whom a verifier accepts. Which gateway a peer is, and whom it may speak for, is asked at each request instead.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expects {
    /// A leaf for authentication under the bundle.
    Gateway,
    /// The link of this instance.
    Link { instance: String, dns_name: String },
    /// Whoever answers. For public documents that carry their own signature.
    Anybody,
}

struct Verifier {
    bundle: Arc<Bundle>,
    issued: Option<Arc<Issued>>,
    expects: Expects,
    algorithms: WebPkiSupportedAlgorithms,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expects", &self.expects).finish_non_exhaustive()
    }
}

impl Verifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let usage = match self.expects {
            Expects::Gateway => Usage::Authentication,
            Expects::Link { .. } => Usage::Link,
            Expects::Anybody => return Ok(()),
        };
        let at = i64::try_from(now.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
        let now = at.ok_or_else(|| rustls::Error::General("the clock is out of range".into()))?;
        let facts = match verify_leaf(leaf, intermediates, &self.bundle, usage, now) {
            Ok(facts) => facts,
            Err(error) => {
                self.refused(chain_label(&error), &error.to_string());
                return Err(alert(&error));
            }
        };
        let is_expected = match (&self.expects, name_of(&facts)) {
            (Expects::Gateway, Some(LeafName::Authentication { .. })) => true,
            (Expects::Link { instance, dns_name }, Some(LeafName::Link { instance: found })) => {
                *instance == found && facts.dns_names.contains(dns_name)
            }
            _ => false,
        };
        // Not of the link: it shows that it is the link's by what it brings, and a list that is older than its leaf would shut out the
        // newer list.
        if let Some(issued) = self.issued.as_ref().filter(|_| self.expects == Expects::Gateway)
            && !issued.admits(leaf, intermediates, &facts, usage, now)
        {
            self.refused(NOT_ISSUED, "its authority is compromised, and the operator has not issued it");
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        if is_expected {
            return Ok(());
        }
        self.refused("no_name", "the certificate carries no name of this federation for this use");
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn refused(&self, reason: &'static str, why: &str) {
        self.metrics.peer_refused(reason);
        warn!(reason, why, "a peer's certificate was refused");
    }
}

/// What the peer is told (RFC 8446 6.2).
fn alert(error: &VerifyError) -> rustls::Error {
    rustls::Error::InvalidCertificate(match error {
        VerifyError::Malformed(_) => CertificateError::BadEncoding,
        VerifyError::Expired { .. } => CertificateError::Expired,
        VerifyError::NotYetValid { .. } => CertificateError::NotValidYet,
        VerifyError::WrongPurpose { .. } | VerifyError::Authority { .. } => CertificateError::InvalidPurpose,
        VerifyError::SelfSigned { .. } | VerifyError::UnknownIssuer { .. } | VerifyError::AuthorityNotValid { .. } => {
            CertificateError::UnknownIssuer
        }
        VerifyError::TooManyIntermediates { .. } | VerifyError::Refused { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
    })
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The crypto provider, for those who build TLS of their own (tests).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
