//! Mounted files, read again by content: the kubelet swaps a symlink, which no watch of a file's inode would see.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use saatkond_pki::digest::sha256;
use saatkond_wire::identity::IDENTITY_ENTRY;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::context::Context;
use crate::state::saved::{INSTANCE_FILE, SERVER_FILE};
use crate::state::{Offer, Origin, State, chain};

/// No mounted file is larger: a Secret or ConfigMap holds at most 1 MiB.
const MAX_FILE: u64 = 4 << 20;

/// The files of one origin.
pub struct Files {
    origin: Origin,
    entries: [Entry; 3],
}

struct Entry {
    path: PathBuf,
    offer: fn(&State, &[u8], Origin, jiff::Timestamp) -> Offer,
    last: Option<[u8; 32]>,
}

impl Files {
    /// Documents in one directory, the identity in another.
    #[must_use]
    pub fn new(origin: Origin, documents: &std::path::Path, identity: &std::path::Path) -> Self {
        let entry = |path, offer| Entry { path, offer, last: None };
        Self {
            origin,
            entries: [
                entry(identity.join(IDENTITY_ENTRY), State::offer_identity),
                entry(documents.join(INSTANCE_FILE), State::offer_instance),
                entry(documents.join(SERVER_FILE), State::offer_server),
            ],
        }
    }

    /// Reads all files and offers those whose content has changed.
    pub async fn read(&mut self, context: &Context) {
        for entry in &mut self.entries {
            let bytes = match read_bounded(entry.path.clone()).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    warn!(path = %entry.path.display(), error = chain(&error), "failed to read a mounted file");
                    continue;
                }
            };
            let hash = sha256(&bytes);
            if entry.last.replace(hash) != Some(hash)
                && (entry.offer)(&context.state, &bytes, self.origin, context.now()) == Offer::Unsaved
            {
                entry.last = None;
            }
        }
    }

    /// Offers everything again at the next reading: what did not fit before may fit what has come into force since.
    pub fn forget(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.last = None);
    }
}

async fn read_bounded(path: PathBuf) -> std::io::Result<Vec<u8>> {
    let read = move || {
        if std::fs::metadata(&path)?.len() > MAX_FILE {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is too large"));
        }
        std::fs::read(&path)
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
}

/// Reads the mounts every few seconds until `closing`.
pub async fn watch(context: Arc<Context>, mut files: Files, interval: Duration, closing: CancellationToken) {
    let mut changes = context.state.changes();
    loop {
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            files.forget();
        }
        files.read(&context).await;
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}
