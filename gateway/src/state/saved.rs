//! Copies in the pod's memory-backed directory: a container that is restarted in place must never fall behind the receipt that
//! it has given (design §6.2 c), and must be told apart from the one before it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The instance configuration, as it travels. Also the name of the mounted copy.
pub const INSTANCE_FILE: &str = "instance.jws.gz";
/// The server configuration, as it travels. Also the name of the mounted copy.
pub const SERVER_FILE: &str = "server.jws.gz";
/// The counter of starts.
const INCARNATION_FILE: &str = "incarnation";

/// The directory.
#[derive(Debug, Clone)]
pub struct Saved(PathBuf);

impl Saved {
    /// Uses `directory`, which exists.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// A saved copy; `None` where there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a copy as a whole: a crash leaves the old or the new one, never a part.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.0.join(format!(".{name}.new"));
        let mut file = create_private(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }

    /// Raises the counter of starts and returns it. A counter that cannot be read is a fault: beginning again at 1 would make
    /// this process look older than the one before it.
    pub fn next_incarnation(&self) -> io::Result<u64> {
        let last = match self.read(INCARNATION_FILE)? {
            None => 0,
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the incarnation counter is unreadable"))?,
        };
        let next = last.saturating_add(1);
        self.write(INCARNATION_FILE, next.to_string().as_bytes())?;
        Ok(next)
    }
}

/// Keys are saved here too: nobody else in the pod has a reason to read them.
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_the_counter_outlive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let saved = Saved::new(directory.path().into());
        assert_eq!(saved.read(INSTANCE_FILE).unwrap(), None);
        saved.write(INSTANCE_FILE, b"one").unwrap();
        saved.write(INSTANCE_FILE, b"two").unwrap();
        assert_eq!(saved.read(INSTANCE_FILE).unwrap().unwrap(), b"two");
        assert_eq!([saved.next_incarnation().unwrap(), saved.next_incarnation().unwrap()], [1, 2]);
        saved.write(INCARNATION_FILE, b"x").unwrap();
        assert!(saved.next_incarnation().is_err());
    }
}
