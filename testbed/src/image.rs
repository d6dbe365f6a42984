//! Container images without a container engine: one layer, made of files, in a docker-archive.
//!
//! The same input gives the same bytes: entries in order of name, no time stamps, no owners, no compression.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use flate2::{Compression, write::GzEncoder};

use crate::{Result, error::Doing as _, layout::write_whole};

/// What an image is made of.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// Name and tag, such as `saatkond:dev`.
    pub name: String,
    /// Path in the image -> file here. Folders above a file are made.
    pub files: BTreeMap<String, PathBuf>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value` pairs.
    pub environment: Vec<String>,
    /// User and group the program runs as; numbers, as there is no /etc/passwd.
    pub user: String,
}

/// An image that was built.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The docker-archive.
    pub archive: PathBuf,
    /// Bytes of the layer as a registry would store and send it (gzip).
    pub compressed_bytes: u64,
    /// Bytes of the layer unpacked.
    pub bytes: u64,
}

/// Builds `spec` into the docker-archive `archive`.
pub fn build(spec: &ImageSpec, archive: &Path) -> Result<BuiltImage> {
    let layer = layer(&spec.files)?;
    let diff = sha256_hex(&layer);
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": spec.entrypoint, "Env": spec.environment, "User": spec.user},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    })
    .to_string();
    let id = sha256_hex(config.as_bytes());
    let manifest = serde_json::json!([{
        "Config": format!("{id}.json"), "RepoTags": [spec.name], "Layers": [format!("{diff}.tar")],
    }])
    .to_string();

    let mut compressed = GzEncoder::new(Counter(0), Compression::default());
    compressed.write_all(&layer).doing(|| "compress".to_owned())?;
    let compressed_bytes = compressed.finish().doing(|| "compress".to_owned())?.0;

    let bytes = layer.len() as u64;
    let mut tar = Tar::default();
    tar.file("manifest.json", 0o644, manifest.as_bytes())?;
    tar.file(&format!("{id}.json"), 0o644, config.as_bytes())?;
    tar.file(&format!("{diff}.tar"), 0o644, &layer)?;
    write_whole(archive, &tar.finish())?;
    Ok(BuiltImage { archive: archive.to_owned(), compressed_bytes, bytes })
}

fn layer(files: &BTreeMap<String, PathBuf>) -> Result<Vec<u8>> {
    let mut tar = Tar::default();
    // /tmp, because programs expect one; a read-only root hides it anyway.
    let mut folders = BTreeMap::from([("tmp/".to_owned(), 0o1777)]);
    for path in files.keys() {
        let inside = path.trim_start_matches('/');
        for (end, _) in inside.match_indices('/') {
            folders.entry(inside[..=end].to_owned()).or_insert(0o755);
        }
    }
    for (folder, mode) in &folders {
        tar.folder(folder, *mode)?;
    }
    for (path, source) in files {
        let what = || format!("read {}", source.display());
        let content = fs::read(source).doing(what)?;
        let executable = fs::metadata(source).doing(what)?.permissions().mode() & 0o100 != 0;
        tar.file(path.trim_start_matches('/'), if executable { 0o755 } else { 0o644 }, &content)?;
    }
    Ok(tar.finish())
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The little of the ustar format that an image needs.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        self.header(name, mode, 0, b'5')
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(name, mode, content.len(), b'0')?;
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: u8) -> Result<()> {
        // 11 octal digits hold 8 GiB; 100 bytes hold every name that is used here.
        if name.len() > 100 || size >= 1 << 33 {
            return Err(io::Error::other("name or size does not fit a tar header")).doing(|| format!("pack {name}"));
        }
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        put(148, "        ");
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::run;
    use std::process::Command;

    fn spec(folder: &Path) -> ImageSpec {
        let program = folder.join("program");
        fs::write(&program, "#!/bin/true\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        ImageSpec {
            name: "example:dev".to_owned(),
            files: BTreeMap::from([
                ("/program".to_owned(), program.clone()),
                ("/etc/example/hosts".to_owned(), PathBuf::from("/etc/hosts")),
            ]),
            entrypoint: vec!["/program".to_owned()],
            ..ImageSpec::default()
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        build(&spec, &folder.path().join("a.tar")).unwrap();
        build(&spec, &folder.path().join("b.tar")).unwrap();
        assert_eq!(fs::read(folder.path().join("a.tar")).unwrap(), fs::read(folder.path().join("b.tar")).unwrap());
    }

    #[test]
    fn tar_reads_what_was_packed() {
        let folder = tempfile::tempdir().unwrap();
        let built = build(&spec(folder.path()), &folder.path().join("image.tar")).unwrap();
        run(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&built.archive)).unwrap();
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.path().join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "example:dev");
        let layer = folder.path().join(manifest[0]["Layers"][0].as_str().unwrap());
        let listing = run(Command::new("tar").arg("-tvf").arg(layer)).unwrap();
        for expected in ["drwxrwxrwt", "-rwxr-xr-x", "program", "etc/example/hosts"] {
            assert!(listing.contains(expected), "{expected} is not in\n{listing}");
        }
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(Tar::default().file(&"x".repeat(100), 0o644, b"").is_ok());
        assert!(Tar::default().file(&"x".repeat(101), 0o644, b"").is_err());
    }
}
