//! What can go wrong, each with what a person needs to act on it.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Everything that the testbed fails with.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, socket or program could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A condition did not come within its bound.
    #[error("{what}: not within {bound:?}\n{state}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        bound: Duration,
        /// What the thing that was waited for looked like at the end.
        state: String,
    },
    /// A program ran and said no.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it printed.
        output: String,
    },
    /// This machine lacks something.
    #[error("{0}")]
    Preflight(String),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file of the testbed does not hold what it should.
    #[error("{path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// The name cannot be, or is not, a region.
    #[error("region {name:?}: {why}")]
    Region {
        /// The region.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// As [`Display`](fmt::Display): a test that unwraps shows the state line by line, not as one line that nobody can
/// read.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was being done when an input or output error came.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io { what: what(), source: errno.into() })
    }
}
