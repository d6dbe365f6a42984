//! The link's TLS: its own leaf for each trust anchor, chosen by the name that the peer asks for, and the peer's leaf.
//!
//! A peer's certificate is taken with whatever chain it has: the handshake proves that the peer holds the key, and the
//! key's hash is looked up among the registered ones for each request (see [`super::peers`]). So a change of authority
//! never locks a process out of the channel that would bring it the new one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use saatkond_api::names::link_server_name;
use saatkond_pki::digest::sha256;
use saatkond_wire::identity::Credential;
use zeroize::Zeroizing;

/// The entry of a trust anchor in the link's Secret, and the file that the link reads.
#[must_use]
pub fn entry_name(anchor: &str) -> String {
    format!("{anchor}.json")
}

/// Why the link's own leaves cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The folder or a file in it cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not a certificate with its key.
    #[error("{file} is not a certificate with its key: {why}")]
    Unusable {
        /// Its name.
        file: String,
        /// Why, without any of its content.
        why: &'static str,
    },
    /// rustls refused the settings.
    #[error("failed to set TLS up")]
    Setup(#[source] rustls::Error),
}

/// Names and contents of files.
pub type Files = Vec<(String, Zeroizing<Vec<u8>>)>;

fn hash(files: &Files) -> [u8; 32] {
    let all: Vec<u8> =
        files.iter().flat_map(|(name, bytes)| [sha256(name.as_bytes()), sha256(bytes)].concat()).collect();
    sha256(&all)
}

/// The files of the mounted Secret, ordered: what changes when a leaf is renewed.
pub fn read_files(folder: &Path) -> Result<Files, TlsError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Read { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        // The kubelet's own `..data` and its time-stamped folder are not entries.
        if name.starts_with("..") || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = Zeroizing::new(std::fs::read(&path).map_err(failed(&path))?);
        files.push((name, bytes));
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// Builds the whole configuration from the files. A new one starts with an empty store of tickets, so no session made
/// under an old leaf is resumed under a new one. For a file that cannot be used the leaf in `before` stays, if there is one: the
/// leaves of other trust anchors are none the worse for it. Where there is none at all that can be used, that is an error.
pub fn build(files: &[(String, Zeroizing<Vec<u8>>)], before: &Leaves) -> Result<(ServerConfig, Leaves), TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut leaves = Leaves::new();
    let mut broken = None;
    for (file, bytes) in files {
        match leaf(file, bytes, &provider) {
            Ok((name, leaf)) => drop(leaves.insert(name, Arc::new(leaf))),
            Err(why) => {
                let name = file.strip_suffix(".json").map(link_server_name).unwrap_or_default();
                let kept = before.get(&name).cloned();
                tracing::warn!(file, why, kept = kept.is_some(), "a leaf of the link cannot be used");
                leaves.extend(kept.map(|leaf| (name, leaf)));
                broken.get_or_insert(TlsError::Unusable { file: file.clone(), why });
            }
        }
    }
    if let Some(broken) = broken.filter(|_| leaves.is_empty()) {
        return Err(broken);
    }
    let verifier = Arc::new(KeyHolder { algorithms: provider.signature_verification_algorithms });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByName { leaves: leaves.clone() }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, leaves))
}

fn leaf(file: &str, bytes: &[u8], provider: &CryptoProvider) -> Result<(String, CertifiedKey), &'static str> {
    let anchor = file.strip_suffix(".json").ok_or("its name is not that of a trust anchor")?;
    let credential: Credential = serde_json::from_slice(bytes).map_err(|_| "not a credential")?;
    Ok((link_server_name(anchor), certified(&credential, provider)?))
}

fn certified(credential: &Credential, provider: &CryptoProvider) -> Result<CertifiedKey, &'static str> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(credential.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| "the certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(credential.key.expose().as_bytes()).map_err(|_| "the key is not PEM")?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| "the key is of no kind that is known")?;
    let certified = CertifiedKey::new(chain, key);
    // A leaf with another leaf's key would fail each handshake, with nothing to show why.
    certified.keys_match().map_err(|_| "the key is not that of the certificate")?;
    Ok(certified)
}

/// The link's leaves, by the name that is asked for.
pub type Leaves = HashMap<String, Arc<CertifiedKey>>;

/// Chooses the leaf by the name asked for.
#[derive(Debug)]
struct ByName {
    leaves: Leaves,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.leaves.get(hello.server_name()?).cloned()
    }
}

/// Takes every certificate whose key the peer holds.
#[derive(Debug)]
struct KeyHolder {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for KeyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The configuration for new connections; absent until there is a leaf.
#[derive(Default)]
pub struct CurrentTls {
    /// Hash of the files that it was built from, and their leaves.
    built: std::sync::Mutex<Option<([u8; 32], Leaves)>>,
    config: ArcSwap<Option<Arc<ServerConfig>>>,
}

impl CurrentTls {
    /// The configuration, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<ServerConfig>> {
        self.config.load().as_ref().clone()
    }

    /// Reads the folder and swaps the whole configuration when something in it has changed. What cannot be used keeps
    /// the old one serving. Says whether it was swapped.
    pub fn refresh(&self, folder: &Path) -> Result<bool, TlsError> {
        let files = read_files(folder)?;
        if files.is_empty() {
            return Ok(false);
        }
        let hash = hash(&files);
        let mut built = self.built.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if built.as_ref().is_some_and(|(of, _)| *of == hash) {
            return Ok(false);
        }
        let none = Leaves::new();
        let (config, leaves) = build(&files, built.as_ref().map_or(&none, |(_, leaves)| leaves))?;
        self.config.store(Arc::new(Some(Arc::new(config))));
        *built = Some((hash, leaves));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use saatkond_pki::authority::{Authority, AuthoritySpec};
    use saatkond_pki::key::{Algorithm, KeySource as _, SystemKeys};
    use saatkond_pki::leaf::{self, LeafRequest, Terms, Usage};
    use saatkond_pki::serial::Serial;
    use saatkond_wire::identity::SecretText;

    use super::*;

    fn credential(anchor: &str) -> Vec<u8> {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let spec = AuthoritySpec {
            instance: "EE",
            generation: 1,
            algorithm: Algorithm::EcdsaP256,
            not_before: now,
            lifetime: SignedDuration::from_hours(1000),
            serial: Serial::from_random([1; 16]),
        };
        let authority = Authority::create(&spec, &SystemKeys).unwrap();
        let key = SystemKeys.generate(Algorithm::EcdsaP256).unwrap();
        let name = link_server_name(anchor);
        let request = LeafRequest {
            usage: Usage::Link,
            common_name: name.clone(),
            uri: "saatkond://EE/link?use=link".into(),
            dns_names: vec![name],
        };
        let lifetime = SignedDuration::from_hours(100);
        let terms = Terms { now, lifetime, retirement: SignedDuration::ZERO, serial: Serial::from_random([2; 16]) };
        let issued = leaf::issue(&authority, &request, key.public(), &terms).unwrap();
        let key = SecretText::new(key.to_pkcs8_pem().to_string());
        let credential = Credential { issue_number: 0, generation: 1, certificate: issued.pem, key };
        serde_json::to_vec(&credential).unwrap()
    }

    #[test]
    fn a_leaf_that_cannot_be_used_takes_neither_the_others_nor_the_one_before_it_along() {
        let folder = tempfile::tempdir().unwrap();
        let write = |anchor: &str, bytes: &[u8]| std::fs::write(folder.path().join(entry_name(anchor)), bytes).unwrap();
        let tls = CurrentTls::default();
        let leaves = || {
            let built = tls.built.lock().unwrap();
            let mut names: Vec<_> = built.iter().flat_map(|(_, leaves)| leaves.keys().cloned()).collect();
            names.sort();
            names
        };
        write("ee", b"{}");
        assert!(tls.refresh(folder.path()).is_err(), "there is nothing to serve with");
        assert!(tls.get().is_none());
        let second = credential("fi");
        write("fi", &second);
        assert!(tls.refresh(folder.path()).unwrap());
        assert_eq!(leaves(), ["fi.link.saatkond.internal"]);
        write("ee", &credential("ee"));
        assert!(tls.refresh(folder.path()).unwrap());
        let both = ["ee.link.saatkond.internal", "fi.link.saatkond.internal"];
        assert_eq!(leaves(), both);
        write("fi", &second[..second.len() / 2]);
        assert!(tls.refresh(folder.path()).unwrap());
        assert_eq!(leaves(), both, "the leaf before the damaged one stays");
        assert!(!tls.refresh(folder.path()).unwrap(), "nothing has changed");
    }
}
