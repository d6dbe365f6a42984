//! Whether a document may be taken up. Pure: what is held, what is offered, and the time.

use jiff::Timestamp;
use saatkond_pki::bundle::{Bundle, BundleError};
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::document::{DocumentError, FORMAT};
use saatkond_wire::identifier::ServerId;

/// Why an update is not taken up. What is held stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Not a document that a trusted key signed.
    #[error("the document cannot be trusted")]
    Document(#[source] DocumentError),
    /// Written in a form that this version does not know.
    #[error("the document is of format {0}, which this version does not know")]
    Format(u32),
    /// Its time is over.
    #[error("the document expired at {0}")]
    Expired(Timestamp),
    /// Of another instance.
    #[error("the document is of instance {found}, this server is of {expected}")]
    OtherInstance {
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// For another server.
    #[error("the document is for the server {0}")]
    OtherServer(Box<ServerId>),
    /// The same number as what is held, with other content.
    #[error("{what} {number} is held with other content")]
    Conflict {
        /// Which number.
        what: &'static str,
        /// Its value.
        number: u64,
    },
    /// A number that never goes back did.
    #[error("the bundle sequence goes back from {held} to {offered} in a newer document")]
    SequenceBack {
        /// What is held.
        held: u64,
        /// What was offered.
        offered: u64,
    },
    /// The authorities cannot be read.
    #[error("the bundle of the document cannot be used")]
    Bundle(#[source] BundleError),
    /// The identity cannot be used.
    #[error("the identity cannot be used")]
    Identity(#[source] super::identity::IdentityError),
    /// The identity is good, but not with the documents at hand.
    #[error("the identity does not fit the documents: {0}")]
    Unfit(String),
    /// TLS cannot be set up with it.
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
    /// It could not be saved, so it must not be acknowledged.
    #[error("failed to save the update")]
    Save(#[source] std::io::Error),
}

impl Rejection {
    /// The metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Document(_) => "document",
            Self::Format(_) => "format",
            Self::Expired(_) => "expired",
            Self::OtherInstance { .. } | Self::OtherServer(_) => "other_server",
            Self::Conflict { .. } => "conflict",
            Self::SequenceBack { .. } => "sequence_back",
            Self::Bundle(_) => "bundle",
            Self::Identity(_) => "identity",
            Self::Unfit(_) => "unfit",
            Self::Tls(_) => "tls",
            Self::Save(_) => "save",
        }
    }
}

/// Whether an offered document is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it up.
    Newer,
    /// What is held is as new, or newer.
    NotNewer,
}

/// Judges an instance configuration; also returns its authorities.
pub fn instance(
    held: Option<&InstanceConfiguration>,
    offered: &InstanceConfiguration,
    now: Timestamp,
) -> Result<(Verdict, Bundle), Rejection> {
    if offered.format > FORMAT {
        return Err(Rejection::Format(offered.format));
    }
    let certificates: Vec<&str> = offered.bundle.iter().map(|entry| entry.certificate.trim_end()).collect();
    let bundle = Bundle::from_pem(&certificates.join("\n")).map_err(Rejection::Bundle)?;
    if let Some(held) = held {
        if held.instance != offered.instance {
            let (found, expected) = (offered.instance.clone(), held.instance.clone());
            return Err(Rejection::OtherInstance { found, expected });
        }
        if offered.version < held.version || offered == held {
            return Ok((Verdict::NotNewer, bundle));
        }
        if offered.version == held.version {
            return Err(Rejection::Conflict { what: "instance version", number: held.version });
        }
        if offered.bundle_sequence < held.bundle_sequence {
            let (held, offered) = (held.bundle_sequence, offered.bundle_sequence);
            return Err(Rejection::SequenceBack { held, offered });
        }
        let same_trust = held.bundle == offered.bundle && held.signing_generation == offered.signing_generation;
        if offered.bundle_sequence == held.bundle_sequence && !same_trust {
            return Err(Rejection::Conflict { what: "bundle sequence", number: held.bundle_sequence });
        }
    }
    if now >= offered.expires_at {
        return Err(Rejection::Expired(offered.expires_at));
    }
    Ok((Verdict::Newer, bundle))
}

/// Judges a server configuration for the server that this one is, as far as it is known.
pub fn server(
    held: Option<&ServerConfiguration>,
    own: Option<&ServerId>,
    offered: &ServerConfiguration,
    now: Timestamp,
) -> Result<Verdict, Rejection> {
    if offered.format > FORMAT {
        return Err(Rejection::Format(offered.format));
    }
    if own.or(held.map(|held| &held.server)).is_some_and(|own| *own != offered.server) {
        return Err(Rejection::OtherServer(Box::new(offered.server.clone())));
    }
    if let Some(held) = held {
        if offered.version < held.version || offered == held {
            return Ok(Verdict::NotNewer);
        }
        if offered.version == held.version {
            return Err(Rejection::Conflict { what: "server version", number: held.version });
        }
    }
    if now >= offered.expires_at {
        return Err(Rejection::Expired(offered.expires_at));
    }
    Ok(Verdict::Newer)
}
