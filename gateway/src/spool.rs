//! Where bodies wait: in memory up to 64 KiB while there is room, then in a file without a name in the spool directory, within a bound over all
//! calls. Dropping a body gives its space back, whatever way it went.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::memory::{HeldBytes, Hold};

/// Up to here a body stays in memory.
pub const IN_MEMORY: usize = 64 << 10;
const PIECE: usize = 64 << 10;

/// The spool of a gateway.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: Arc<PathBuf>,
    used: Arc<AtomicU64>,
    held: HeldBytes,
}

/// Why a body cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// All calls together would take more than is allowed.
    #[error("the spool is full")]
    Full,
    /// The body is longer than a message may be.
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
    /// The file system failed.
    #[error("failed to use the spool directory")]
    Io(#[from] io::Error),
}

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For this body; no bound of its own when absent.
    pub body: Option<u64>,
    /// For the spool as a whole, on disk.
    pub total: u64,
}

/// A body that waits.
#[derive(Debug)]
pub struct Spooled {
    /// All of it, or what is not in the file yet: each write to the file is a turn of another thread, and pieces come by 16 KiB.
    memory: BytesMut,
    file: Option<File>,
    length: u64,
    share: Share,
    hold: Hold,
}

/// What a body takes of the spool.
#[derive(Debug)]
struct Share {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, by: u64, total: u64) -> Result<(), SpoolError> {
        let add = |used: u64| used.checked_add(by).filter(|sum| *sum <= total);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| SpoolError::Full)?;
        self.bytes += by;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Spool {
    /// A spool in `directory`, with what it keeps in memory counted among what is `held`.
    #[must_use]
    pub fn new(directory: PathBuf, held: HeldBytes) -> Self {
        Self { directory: Arc::new(directory), used: Arc::default(), held }
    }

    /// Bytes on disk now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// An empty body.
    #[must_use]
    pub fn body(&self) -> Spooled {
        let share = Share { used: self.used.clone(), bytes: 0 };
        Spooled { memory: BytesMut::new(), file: None, length: 0, share, hold: self.held.hold() }
    }

    async fn file(&self) -> io::Result<File> {
        let directory = self.directory.clone();
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(&*directory)).await;
        Ok(File::from_std(file.map_err(io::Error::other)??))
    }
}

impl Spooled {
    /// Appends a piece.
    pub async fn push(&mut self, piece: &[u8], spool: &Spool, bounds: Bounds) -> Result<(), SpoolError> {
        self.length += piece.len() as u64;
        if let Some(max) = bounds.body
            && self.length > max
        {
            return Err(SpoolError::TooLong(max));
        }
        if self.file.is_none() && self.memory.len() + piece.len() <= IN_MEMORY && self.hold.grow(piece.len()) {
            self.memory.extend_from_slice(piece);
            return Ok(());
        }
        let fresh = if self.file.is_none() { self.memory.len() } else { 0 };
        self.share.grow((fresh + piece.len()) as u64, bounds.total)?;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(spool.file().await?),
        };
        if self.memory.len() + piece.len() > IN_MEMORY {
            file.write_all(&self.memory).await?;
            self.hold.shrink(self.memory.len());
            // Not emptied: it would keep its room, which nobody counts any more.
            self.memory = BytesMut::new();
        }
        // Where there is no room, or the piece is long, it goes by itself.
        if piece.len() <= IN_MEMORY && self.hold.grow(piece.len()) {
            self.memory.extend_from_slice(piece);
            return Ok(());
        }
        file.write_all(&self.memory).await?;
        self.hold.shrink(self.memory.len());
        self.memory = BytesMut::new();
        Ok(file.write_all(piece).await?)
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Goes back to its beginning, to be read.
    pub async fn rewind(mut self) -> io::Result<Rewound> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory).await?;
            self.hold.shrink(self.memory.len());
            self.memory = BytesMut::new();
            file.flush().await?;
            file.seek(SeekFrom::Start(0)).await?;
        }
        let memory = self.hold.keep(self.memory.freeze());
        Ok(Rewound { memory, file: self.file, left: self.length, _share: self.share })
    }
}

/// A body that is being read back.
#[derive(Debug)]
pub struct Rewound {
    memory: Bytes,
    file: Option<File>,
    left: u64,
    _share: Share,
}

impl Rewound {
    /// How much is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = match &mut self.file {
            None => std::mem::take(&mut self.memory),
            Some(file) => {
                let mut piece = BytesMut::with_capacity(PIECE);
                if file.read_buf(&mut piece).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                piece.freeze()
            }
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(spooled: Spooled) -> Vec<u8> {
        let (mut rewound, mut out) = (spooled.rewind().await.unwrap(), Vec::new());
        while let Some(piece) = rewound.next().await.unwrap() {
            out.extend_from_slice(&piece);
        }
        out
    }

    #[tokio::test]
    async fn bodies_come_back_whole_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        // With room for one body of many pieces, for none, and for some of them.
        for (room, pieces) in [(1 << 20, 10_000), (1 << 20, 100_000), (0, 10_000), (25_000, 10_000)] {
            let held = HeldBytes::new(room);
            let spool = Spool::new(directory.path().into(), held.clone());
            let bounds = Bounds { body: None, total: 1 << 20 };
            for length in [0, 1, IN_MEMORY, IN_MEMORY + 1, 300_000] {
                let body: Vec<u8> = (0..=255).cycle().take(length).collect();
                let mut spooled = spool.body();
                for piece in body.chunks(pieces) {
                    spooled.push(piece, &spool, bounds).await.unwrap();
                    assert!(held.total() <= IN_MEMORY as u64, "{}", held.total());
                }
                let fits = length <= IN_MEMORY && length as u64 <= room;
                assert_eq!(spool.used(), if fits { 0 } else { length as u64 }, "{length} in {room}");
                assert_eq!(spooled.length(), length as u64);
                assert!(all(spooled).await == body, "{length} in {room}");
                assert_eq!((spool.used(), held.total()), (0, 0));
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_finds_no_room_in_memory_goes_to_disk() {
        let directory = tempfile::tempdir().unwrap();
        let held = HeldBytes::new(100);
        let spool = Spool::new(directory.path().into(), held.clone());
        let bounds = Bounds { body: None, total: 1 << 20 };
        let (mut first, mut second) = (spool.body(), spool.body());
        first.push(&[1; 90], &spool, bounds).await.unwrap();
        second.push(&[2; 10], &spool, bounds).await.unwrap();
        second.push(&[2; 1], &spool, bounds).await.unwrap();
        assert_eq!((held.total(), spool.used()), (90, 11));
        assert_eq!((all(first).await, all(second).await), (vec![1; 90], vec![2; 11]));
        assert_eq!((held.total(), spool.used()), (0, 0));
    }

    #[tokio::test]
    async fn both_bounds_hold_and_a_failed_body_gives_its_space_back() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().into(), HeldBytes::new(1 << 20));
        let piece = vec![0; 50_000];
        let bounds = Bounds { body: None, total: 150_000 };
        let mut first = spool.body();
        for _ in 0..3 {
            first.push(&piece, &spool, bounds).await.unwrap();
        }
        let mut second = spool.body();
        second.push(&piece, &spool, bounds).await.unwrap();
        assert!(matches!(second.push(&piece, &spool, bounds).await, Err(SpoolError::Full)));
        drop((first, second));
        assert_eq!(spool.used(), 0);
        let bounds = Bounds { body: Some(50_000), total: 150_000 };
        let mut third = spool.body();
        third.push(&piece, &spool, bounds).await.unwrap();
        assert!(matches!(third.push(b"x", &spool, bounds).await, Err(SpoolError::TooLong(50_000))));
    }
}
