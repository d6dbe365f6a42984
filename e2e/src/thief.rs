//! Somebody who has stolen the key of an authority, with OpenSSL alone: what is refused is judged from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use saatkond_testbed::{Cluster, Layout, Region};
use serde_json::Value;

use crate::install::NAMESPACE;

/// Longer than any handshake takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a client says first in HTTP/2 (RFC 9113 3.4): the preface and empty settings. The server answers with its own settings once it has
/// accepted the client's certificate.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The thief, with a leaf for authentication.
#[derive(Debug)]
pub struct Thief {
    dir: PathBuf,
}

/// What came of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// The server speaks HTTP/2 with whoever holds the certificate.
    Accepted,
    /// It does not; in the words of OpenSSL.
    Refused(String),
}

impl Thief {
    /// Takes the key of a generation of the anchor, and mints a leaf in the name of the server that answers at this address.
    pub fn mint(
        layout: &Layout,
        region: &Region,
        anchor: &str,
        generation: u64,
        address: &str,
    ) -> anyhow::Result<Self> {
        let dir = layout.root().join("target/thief");
        fs::create_dir_all(&dir).context("failed to make target/thief")?;
        let thief = Self { dir };
        let secret = format!("{anchor}-ca-{generation}");
        for (entry, file) in [("tls.crt", "ca.pem"), ("tls.key", "ca.key")] {
            thief.write(file, &stolen(region.cluster(), &secret, entry)?)?;
        }
        let said = thief.connect(region, address, &["-showcerts"])?;
        let of_server = thief.openssl(&["x509", "-noout", "-ext", "subjectAltName"], &said)?;
        let names = String::from_utf8_lossy(&of_server);
        let names: Vec<_> = names.lines().skip(1).flat_map(|line| line.split(',')).map(str::trim).collect();
        ensure!(names.iter().any(|name| name.starts_with("URI:")), "the server's certificate has no URI: {names:?}");
        let profile = format!(
            "subjectAltName={}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n",
            names.join(",")
        );
        thief.write("profile.cnf", profile.as_bytes())?;
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", "minted.key"];
        let request = thief.openssl(&[&["req", "-new", "-subj", "/CN=minted"], &new_key[..]].concat(), b"")?;
        let signing = ["-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-extfile", "profile.cnf"];
        let minted = thief.openssl(&[&["x509", "-set_serial", "0x7eef"], &signing[..]].concat(), &request)?;
        thief.write("minted.pem", &minted)?;
        Ok(thief)
    }

    /// Shows the minted leaf to whoever answers at this address.
    pub fn knock(&self, region: &Region, address: &str) -> anyhow::Result<Handshake> {
        let mut command = self.command(&["s_client", "-connect", address, "-alpn", "h2", "-quiet"]);
        command.args(["-cert", "minted.pem", "-key", "minted.key"]);
        let mut client = region.inside_network(|| command.spawn())?.context("failed to run openssl")?;
        let (mut stdin, mut stdout) = (client.stdin.take().context("stdin")?, client.stdout.take().context("stdout")?);
        // It may have ended.
        let _ = stdin.write_all(HELLO);
        let (says, said) = mpsc::channel();
        thread::spawn(move || {
            let mut first = [0; 1];
            let _ = says.send(stdout.read(&mut first).unwrap_or(0));
        });
        let first = said.recv_timeout(PATIENCE);
        let _ = client.kill();
        drop(stdin);
        let output = client.wait_with_output().context("openssl")?;
        match first.context("neither an answer nor an end of the session")? {
            0 => Ok(Handshake::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            _ => Ok(Handshake::Accepted),
        }
    }

    fn connect(&self, region: &Region, address: &str, options: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command(&["s_client", "-connect", address, "-alpn", "h2"]);
        command.args(options);
        let client = region.inside_network(|| command.spawn())?.context("failed to run openssl")?;
        // Without a certificate it is refused in the end; what the server has shown is what is asked for.
        Ok(answer(client, b"")?.stdout)
    }

    fn openssl(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
        let output = answer(self.command(arguments).spawn().context("failed to run openssl")?, input)?;
        ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(&self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn write(&self, file: &str, content: &[u8]) -> anyhow::Result<()> {
        fs::write(self.dir.join(file), content).with_context(|| format!("failed to write {file}"))
    }
}

impl Drop for Thief {
    /// A key of a region that is gone is worth nothing, and is not left behind all the same.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn answer(mut child: std::process::Child, input: &[u8]) -> anyhow::Result<Output> {
    // It may have ended.
    let _ = child.stdin.take().context("stdin")?.write_all(input);
    child.wait_with_output().context("openssl")
}

fn stolen(cluster: &Cluster, secret: &str, entry: &str) -> anyhow::Result<Vec<u8>> {
    let said = cluster.kubectl(&["-n", NAMESPACE, "get", "secret", secret, "--output=json"])?;
    let secret: Value = serde_json::from_str(&said)?;
    let text = secret["data"][entry].as_str().with_context(|| format!("the Secret has no {entry}"))?;
    decoded(text)
}

/// Base64, by OpenSSL as well.
fn decoded(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("openssl");
    command.args(["base64", "-d", "-A"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(answer(command.spawn().context("failed to run openssl")?, text.as_bytes())?.stdout)
}
