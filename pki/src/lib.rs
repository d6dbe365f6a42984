//! Certificates, bundles, signatures and evidence. No Kubernetes; keys, time and randomness are arguments.

pub mod configuration_key;
pub mod pem;
