//! Where things are.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, error::Doing as _, image::sha256_hex, wait};

/// The folders of one checkout.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The checkout that this crate was built in, or the one that `SAATKOND_ROOT` names.
    pub fn find() -> Self {
        let root = env::var_os("SAATKOND_ROOT").map_or_else(
            || {
                let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
                manifest.parent().unwrap_or(manifest).to_owned()
            },
            PathBuf::from,
        );
        Self::at(root)
    }

    /// The checkout at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { root: root.canonicalize().unwrap_or(root) }
    }

    /// Six characters that differ between checkouts, so that two of them on one machine do not meet.
    pub fn id(&self) -> String {
        sha256_hex(self.root.as_os_str().as_encoded_bytes())[..6].to_owned()
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A program that `testbed/install.sh` installed.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join("target/tools/bin").join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::Preflight(format!("{name} is not installed: run testbed/install.sh regions (or api) first")))
    }

    /// An image archive that `testbed/install.sh` made.
    pub fn image(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join("target/tools/images").join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Error::Preflight(format!("image {name} is not there: run testbed/install.sh regions first")))
    }

    /// The state of the API-server tier.
    pub fn api(&self) -> PathBuf {
        self.root.join("target/testbed/api")
    }

    /// The state of all regions.
    pub fn regions(&self) -> PathBuf {
        self.root.join("target/regions")
    }

    /// The `testbed` program: it holds what has to outlive the process that asked for it.
    pub fn testbed_program(&self) -> Result<PathBuf> {
        if let Some(path) = env::var_os("SAATKOND_TESTBED_BIN") {
            return Ok(path.into());
        }
        let mut candidates = Vec::new();
        if let Ok(me) = env::current_exe() {
            // The program itself; or a test, which cargo puts into deps/ beside it.
            candidates.push(me.with_file_name("testbed"));
            if let Some(profile) = me.parent().and_then(Path::parent) {
                candidates.push(profile.join("testbed"));
            }
        }
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from);
        let mut folders = vec![target.clone()];
        if let Ok(entries) = fs::read_dir(&target) {
            folders.extend(entries.flatten().map(|entry| entry.path()));
        }
        for folder in folders {
            candidates.extend(["debug/testbed", "release/testbed"].map(|program| folder.join(program)));
        }
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            Error::Preflight("the testbed program is not built: run `cargo build -p saatkond-testbed` first".to_owned())
        })
    }
}

/// Writes a file in one step: a reader sees the old or the new, never half of it.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let what = || format!("write {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).doing(what)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).doing(what)?;
    file.write_all(content).doing(what)?;
    file.persist(path).map_err(|error| error.error).doing(what)?;
    Ok(())
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| Error::State { path: path.to_owned(), source })?;
    write_whole(path, &text)
}

/// Reads a file that may not be there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::State { path: path.to_owned(), source })
}

/// Opens a file to lock it. Locks are the kernel's: they end with the process, however it ends.
pub(crate) fn lock_file(path: &Path) -> Result<File> {
    let what = || format!("lock {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).doing(what)?;
    }
    File::options().create(true).truncate(false).read(true).write(true).open(path).doing(what)
}

/// Removes a folder that may not be there, and in which a dying process may still write.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    let last = std::cell::RefCell::new(String::new());
    wait::until(
        &format!("{} can be removed", path.display()),
        Duration::from_secs(10),
        || last.borrow().clone(),
        || match fs::remove_dir_all(path) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(())),
            Err(error) => {
                *last.borrow_mut() = error.to_string();
                Ok(None)
            }
        },
    )
}

/// The end of a log file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = all[all.len().saturating_sub(lines)..].join("\n");
    format!("--- {} (last {lines} lines)\n{last}\n", path.display())
}
