//! Certificates, bundles, signatures and evidence. No Kubernetes; keys, time and randomness are arguments.
//!
//! The path of a certificate: a [`key`] pair and a [`serial`] number become an [`authority`] or a [`leaf`] (or a [`csr`] that
//! becomes one elsewhere), authorities make a [`bundle`], [`verify`] judges leaves against it, [`renewal`] says when the next
//! one is due. [`evidence`] signs and checks messages; [`configuration_key`] signs the documents that gateways run on.

pub mod authority;
mod batch;
pub mod bundle;
pub mod certificate;
mod cms;
pub mod configuration_key;
pub mod csr;
pub mod digest;
pub mod evidence;
#[cfg(test)]
mod fixture;
pub mod key;
pub mod leaf;
mod manifest;
pub mod pem;
pub mod renewal;
pub mod serial;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod verify;
