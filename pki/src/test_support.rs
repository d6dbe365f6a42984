//! Keys that are the same in every run, for tests of this and other crates. Behind the feature `test-support`, so that no
//! product binary can hold a key that everybody knows.

use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::digest::sha256;
use crate::key::{Algorithm, KeyError, KeyPair, KeySource, SystemKeys};

/// Keys derived from a counter: the n-th key of every run is the same. RSA keys cannot be derived from a seed and come from
/// [`SystemKeys`].
#[derive(Debug, Default)]
pub struct FixedKeys(AtomicU64);

impl FixedKeys {
    /// Begins at another counter, for sources that must not give equal keys.
    pub fn starting_at(number: u64) -> Self {
        Self(AtomicU64::new(number))
    }
}

impl KeySource for FixedKeys {
    fn generate(&self, algorithm: Algorithm) -> Result<KeyPair, KeyError> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let mut seed = sha256(format!("saatkond test key {algorithm} {number}").as_bytes());
        // Below the order of either curve.
        seed[0] &= 0x7f;
        // PKCS#8 version 1; the ECPrivateKey within (RFC 5915) leaves the public key out, the provider computes it.
        let prefix = match algorithm {
            Algorithm::EcdsaP256 => "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420",
            Algorithm::EcdsaP384 => {
                "304e020100301006072a8648ce3d020106052b81040022043730350201010430000000000000000000000000000000\
                 00"
            }
            Algorithm::Ed25519 => "302e020100300506032b657004220420",
            Algorithm::Rsa3072 => return SystemKeys.generate(algorithm),
        };
        let mut pkcs8 = hex::decode(prefix).map_err(|_| KeyError::UnsupportedPrivateKey)?;
        pkcs8.extend_from_slice(&seed);
        KeyPair::from_pkcs8(Zeroizing::new(pkcs8))
    }
}
