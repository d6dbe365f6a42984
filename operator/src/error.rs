//! Why a reconcile failed, and how that is told.

use std::error::Error as StdError;
use std::time::Duration;

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("failed to {doing}")]
    Api {
        /// Verb and object.
        doing: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A decision could not be made from what was seen.
    #[error("failed to decide")]
    Decide(#[source] Box<dyn StdError + Send + Sync>),
    /// A key or certificate could not be made or used.
    #[error("failed to {doing}")]
    Sign {
        /// What.
        doing: &'static str,
        /// Why, without any part of a key.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An object is not what was written right after it was written.
    #[error(
        "{object} is changed by something else as it is written: is there an admission webhook that should leave it alone?"
    )]
    Contested {
        /// Kind, namespace and name.
        object: String,
    },
    /// The time for one reconcile is over.
    #[error("not done after {} s", after.as_secs())]
    TimedOut {
        /// The bound.
        after: Duration,
    },
}

impl Error {
    /// A failed request.
    pub fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        |source| Self::Api { doing, source: Box::new(source) }
    }

    /// A key or certificate that could not be made.
    pub fn sign<E: StdError + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Sign { doing, source: Box::new(source) }
    }

    /// Whether the API server did not answer, or asked to come back later: not the object's fault.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_unreachable(source),
            _ => false,
        }
    }

    /// Whether the API server refused it for want of a right.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if status.is_forbidden()))
    }

    /// Whether something was changed between reading and writing.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status)
            if status.is_conflict() || status.is_already_exists()))
    }
}

/// Whether the API server did not answer, or asked to come back later.
#[must_use]
pub fn is_unreachable(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503 | 504),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// An error with all its causes, each said once: some libraries repeat their source in their own text.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn failed(code: u16, reason: &str) -> Error {
        let status = Status { code, reason: reason.into(), message: "m".into(), ..Status::default() };
        Error::api("apply Service ss1")(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn causes_are_said_once() {
        let error = failed(403, "Forbidden");
        let text = chain(&error);
        assert!(text.starts_with("failed to apply Service ss1: "), "{text}");
        let io = std::io::Error::other("disk");
        let error = Error::Sign { doing: "read the key", source: Box::new(io) };
        assert_eq!(chain(&error), "failed to read the key: disk");
    }

    #[test]
    fn a_busy_server_is_not_the_objects_fault_and_a_refusal_is() {
        for code in [429, 503, 504] {
            assert!(failed(code, "x").is_unreachable(), "{code}");
        }
        for code in [403, 409, 422, 500] {
            assert!(!failed(code, "x").is_unreachable(), "{code}");
        }
        assert!(failed(409, "Conflict").is_conflict());
        assert!(failed(409, "AlreadyExists").is_conflict());
        assert!(!failed(403, "Forbidden").is_conflict());
    }
}
