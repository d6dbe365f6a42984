//! The `openssl` program as judge from outside: what this crate writes, OpenSSL accepts; what OpenSSL writes, this crate reads
//! or refuses with a reason.

#![expect(clippy::unwrap_used, reason = "the whole file is a test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::{SignedDuration, Timestamp};
use saatkond_pki::authority::{Authority, AuthorityError, AuthoritySpec};
use saatkond_pki::bundle::Bundle;
use saatkond_pki::configuration_key::ConfigurationKey;
use saatkond_pki::csr;
use saatkond_pki::evidence::{self, MessageDigests, SigningCredential};
use saatkond_pki::key::{Algorithm, KeyPair, KeySource, SystemKeys};
use saatkond_pki::leaf::{self, IssuedLeaf, LeafRequest, Terms, Usage};
use saatkond_pki::serial::Serial;
use saatkond_pki::verify::{VerifyError, verify_leaf};

/// 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400;
const DAY: i64 = 86_400;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn openssl(&self, arguments: &str) -> Output {
        let arguments = arguments.split_ascii_whitespace().map(|argument| argument.replace('~', " "));
        Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("the openssl program is needed")
    }

    /// Runs to success and returns what was printed.
    fn accepts(&self, arguments: &str) -> String {
        let output = self.openssl(arguments);
        let text = both(&output);
        assert!(output.status.success(), "openssl {arguments}: {text}");
        text
    }

    /// Runs to failure and returns what was printed.
    fn refuses(&self, arguments: &str) -> String {
        let output = self.openssl(arguments);
        let text = both(&output);
        assert!(!output.status.success(), "openssl {arguments} should have failed: {text}");
        text
    }
}

impl AsRef<Path> for Directory {
    fn as_ref(&self) -> &Path {
        self.0.path()
    }
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn authority(algorithm: Algorithm) -> Authority {
    let spec = AuthoritySpec {
        instance: "EE",
        generation: 1,
        algorithm,
        not_before: at(NOW - DAY),
        lifetime: SignedDuration::from_hours(24 * 365),
        serial: Serial::from_random([0xff; 16]),
    };
    Authority::create(&spec, &SystemKeys).unwrap()
}

fn issue(authority: &Authority, usage: Usage, key: &KeyPair) -> IssuedLeaf {
    let dns_names = if usage == Usage::Signing { vec![] } else { vec!["gw1.gov.svc".to_owned()] };
    let uri = format!("saatkond://EE/GOV/70000001/gw1?use={usage:?}&issue=7");
    let request = LeafRequest { usage, common_name: "GOV/70000001/gw1".to_owned(), uri, dns_names };
    let terms = Terms {
        now: at(NOW),
        lifetime: SignedDuration::from_hours(360),
        retirement: SignedDuration::from_hours(24),
        serial: Serial::from_random([0; 16]),
    };
    leaf::issue(authority, &request, key.public(), &terms).unwrap()
}

#[test]
fn keys_requests_and_certificates_of_every_algorithm() {
    for algorithm in Algorithm::ALL {
        let directory = Directory::new();
        let authority = authority(algorithm);
        directory.write("ca.pem", authority.certificate().to_pem());
        let text = directory.accepts("x509 -in ca.pem -noout -text");
        for part in [
            "Issuer: O = Saatkond, CN = EE CA 1",
            "CA:TRUE, pathlen:0",
            "Certificate Sign, CRL Sign",
            "X509v3 Subject Key Identifier",
            "X509v3 Authority Key Identifier",
            "7f:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff:ff",
            "Not Before: Feb 28 12:00:00 2026 GMT",
            "Not After : Feb 28 12:00:00 2027 GMT",
        ] {
            assert!(text.contains(part), "{algorithm}: {part} is missing in {text}");
        }
        let key = SystemKeys.generate(algorithm).unwrap();
        directory.write("key.pem", key.to_pkcs8_pem().as_bytes());
        directory.accepts("pkey -in key.pem -check -noout");
        directory.write("request.der", csr::create(&key).unwrap());
        directory.accepts("req -in request.der -inform DER -verify -noout");

        let uses = [
            (
                Usage::Authentication,
                "TLS Web Server Authentication, TLS Web Client Authentication",
                "Digital Signature\n",
            ),
            (Usage::Signing, "1.3.6.1.5.5.7.3.36", "Digital Signature, Non Repudiation\n"),
            (Usage::Link, "TLS Web Server Authentication\n", "Digital Signature\n"),
        ];
        for (usage, purposes, key_usage) in uses {
            directory.write("leaf.pem", issue(&authority, usage, &key).pem);
            let text = directory.accepts("x509 -in leaf.pem -noout -text");
            let uri = format!("URI:saatkond://EE/GOV/70000001/gw1?use={usage:?}&issue=7");
            for part in ["CA:FALSE", purposes, key_usage, &uri, "40:00:00:00", "X509v3 Authority Key Identifier"] {
                assert!(text.contains(part), "{algorithm} {usage}: {part} is missing in {text}");
            }
            let verify =
                |purpose: &str| format!("verify -x509_strict -attime {NOW} -CAfile ca.pem -purpose {purpose} leaf.pem");
            let (server, client) = (usage != Usage::Signing, usage == Usage::Authentication);
            for (purpose, expected) in [("any", true), ("sslserver", server), ("sslclient", client)] {
                if expected {
                    directory.accepts(&verify(purpose));
                } else {
                    directory.refuses(&verify(purpose));
                }
            }
        }
    }
}

#[test]
fn message_signatures_of_every_algorithm() {
    let authority = authority(Algorithm::EcdsaP256);
    // OpenSSL 3.0 cannot verify a CMS of Ed25519: see the next test.
    for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa3072] {
        let directory = Directory::new();
        directory.write("ca.pem", authority.certificate().to_pem());
        let key = SystemKeys.generate(algorithm).unwrap();
        let credential = SigningCredential::new(issue(&authority, Usage::Signing, &key).der, key).unwrap();
        let digests = MessageDigests::of_request(b"GET / HTTP/1.1\n", Some(b"body"));
        directory.write("manifest", evidence::manifest(&digests));
        let cms = evidence::sign(&digests, &credential, at(NOW)).unwrap();
        directory.write("signature.p7s", &cms);
        // `-cades` asks for signing-certificate-v2 and checks it against the signer's certificate.
        let verify = format!(
            "cms -verify -binary -cades -inform DER -in signature.p7s -content manifest -CAfile ca.pem -purpose any \
             -attime {NOW} -out content"
        );
        directory.accepts(&verify);
        let text = directory.accepts("cms -cmsout -print -inform DER -in signature.p7s");
        for part in
            ["signingTime", "Mar  1 12:00:00 2026 GMT", "id-smime-aa-signingCertificateV2", "eContent: <ABSENT>"]
        {
            assert!(text.contains(part), "{algorithm}: {part} is missing in {text}");
        }
        for other in [
            MessageDigests::of_request(b"GET / HTTP/1.1\n", Some(b"Body")),
            MessageDigests::of_answer(b"GET / HTTP/1.1\n", Some(b"body")),
        ] {
            directory.write("manifest", evidence::manifest(&other));
            directory.refuses(&verify);
        }
        directory.write("manifest", evidence::manifest(&digests));
        directory.write("signature.p7s", [&cms[..cms.len() - 1], &[cms[cms.len() - 1] ^ 1]].concat());
        directory.refuses(&verify);
    }
}

/// What a manifest says of the parts is what OpenSSL digests them to.
#[test]
fn digests_in_manifests() {
    let directory = Directory::new();
    directory.write("message.xml", b"GET / HTTP/1.1\n");
    directory.write("attachment1", b"body");
    for (digests, of_body) in [
        (MessageDigests::of_request(b"GET / HTTP/1.1\n", Some(b"body")), "sha512"),
        (MessageDigests::of_answer(b"GET / HTTP/1.1\n", Some(b"body")), "sha256"),
    ] {
        let manifest = String::from_utf8(evidence::manifest(&digests)).unwrap();
        for (part, algorithm) in [("message.xml", "sha512"), ("attachment1", of_body)] {
            directory.accepts(&format!("dgst -{algorithm} -binary -out digest {part}"));
            let value = directory.accepts("base64 -A -in digest");
            let expected = format!(
                "URI=\"{part}\">\n    <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#{algorithm}\"/>\n    \
                 <ds:DigestValue>{}</ds:DigestValue>",
                value.trim()
            );
            assert!(manifest.contains(&expected), "{expected} is missing in {manifest}");
        }
    }
}

/// RFC 8419: Ed25519 signs the DER of the attributes, the content is digested with SHA-512. OpenSSL judges the parts.
#[test]
fn message_signatures_of_ed25519() {
    let directory = Directory::new();
    let authority = authority(Algorithm::Ed25519);
    let key = SystemKeys.generate(Algorithm::Ed25519).unwrap();
    let leaf = issue(&authority, Usage::Signing, &key);
    directory.write("leaf.pem", &leaf.pem);
    let digests = MessageDigests::of_request(b"GET / HTTP/1.1\n", None);
    directory.write("manifest", evidence::manifest(&digests));
    let cms = evidence::sign(&digests, &SigningCredential::new(leaf.der, key).unwrap(), at(NOW)).unwrap();
    directory.write("signature.p7s", &cms);
    let printed = directory.accepts("cms -cmsout -print -inform DER -in signature.p7s");
    assert!(printed.contains("algorithm: sha512") && printed.contains("algorithm: ED25519"), "{printed}");

    let dump = directory.accepts("asn1parse -inform DER -in signature.p7s");
    let digest = directory.accepts("dgst -sha512 -r manifest");
    assert!(dump.contains(&digest[..128].to_uppercase()), "{digest} is missing in {dump}");
    // "  534:d=5  hl=3 l= 228 cons: cont [ 0 ]": the signed attributes are the last element of this form at depth 5.
    let line = dump.lines().rfind(|line| line.contains(":d=5 ") && line.contains("cont [ 0 ]")).unwrap();
    let number = |after: &str| -> usize {
        let rest = line.split(after).nth(1).unwrap().trim_start();
        rest.split_ascii_whitespace().next().unwrap().parse().unwrap()
    };
    let start: usize = line.split(':').next().unwrap().trim().parse().unwrap();
    let mut attributes = cms[start..start + number("hl=") + number(" l=")].to_vec();
    attributes[0] = 0x31;
    directory.write("attributes", attributes);
    directory.write("signature", &cms[cms.len() - 64..]);
    directory.accepts("x509 -in leaf.pem -noout -pubkey -out public.pem");
    directory.accepts("pkeyutl -verify -rawin -pubin -inkey public.pem -in attributes -sigfile signature");
}

/// A CMS that OpenSSL itself makes over the manifest says the same in other bytes, and is not of the profile.
#[test]
fn a_signature_of_another_form_is_refused() {
    let directory = Directory::new();
    let authority = authority(Algorithm::EcdsaP256);
    let key = SystemKeys.generate(Algorithm::EcdsaP256).unwrap();
    directory.write("key.pem", key.to_pkcs8_pem().as_bytes());
    directory.write("leaf.pem", issue(&authority, Usage::Signing, &key).pem);
    let digests = MessageDigests::of_request(b"GET / HTTP/1.1\n", None);
    directory.write("manifest", evidence::manifest(&digests));
    for extra in ["-cades", "-cades -nosmimecap", "-noattr", "-cades -nocerts", "-cades -nodetach", "-cades -keyid"] {
        let sign =
            "cms -sign -binary -md sha256 -signer leaf.pem -inkey key.pem -in manifest -outform DER -out other.p7s";
        directory.accepts(&format!("{sign} {extra}"));
        let cms = std::fs::read(directory.path("other.p7s")).unwrap();
        assert!(evidence::verify_signature_only(&cms, &digests).is_err(), "{extra}");
    }
}

#[test]
fn keys_and_requests_that_openssl_makes() {
    let directory = Directory::new();
    let rows = [
        ("EC -pkeyopt ec_paramgen_curve:P-256", Some(Algorithm::EcdsaP256)),
        ("EC -pkeyopt ec_paramgen_curve:P-384", Some(Algorithm::EcdsaP384)),
        ("ED25519", Some(Algorithm::Ed25519)),
        ("RSA -pkeyopt rsa_keygen_bits:3072", Some(Algorithm::Rsa3072)),
        ("RSA -pkeyopt rsa_keygen_bits:2048", None),
        ("EC -pkeyopt ec_paramgen_curve:P-521", None),
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", None),
        ("X25519", None),
        ("ED448", None),
    ];
    for (arguments, expected) in rows {
        directory.accepts(&format!("genpkey -algorithm {arguments} -out key.pem"));
        let key = KeyPair::from_pkcs8_pem(&directory.read("key.pem"));
        assert_eq!(key.as_ref().ok().map(KeyPair::algorithm), expected, "{arguments}");
        let configuration = ConfigurationKey::from_pkcs8_pem(&directory.read("key.pem"));
        assert_eq!(configuration.is_ok(), expected == Some(Algorithm::Ed25519), "{arguments}");
        let Ok(key) = key else { continue };
        directory.accepts(
            "req -new -key key.pem -subj /CN=whatever -addext basicConstraints=CA:TRUE -outform DER -out r.der",
        );
        let request = std::fs::read(directory.path("r.der")).unwrap();
        assert_eq!(csr::accept(&request).as_ref(), Ok(key.public()), "{arguments}");
    }
}

#[test]
fn a_configuration_key_signs_what_openssl_verifies() {
    let directory = Directory::new();
    let key = ConfigurationKey::generate().unwrap();
    directory.write("key.pem", key.to_pkcs8_pem().as_bytes());
    directory.write("message", "version 7");
    directory.write("signature", key.sign(b"version 7"));
    directory.accepts("pkeyutl -verify -rawin -inkey key.pem -in message -sigfile signature");
    directory.write("message", "version 8");
    directory.refuses("pkeyutl -verify -rawin -inkey key.pem -in message -sigfile signature");
}

/// Names that the issuing library would copy wrongly into leaves: refused when the authority is loaded, not found out by peers.
#[test]
fn authorities_whose_names_cannot_be_copied() {
    let directory = Directory::new();
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out ca.pem -days 30 \
                -addext keyUsage=critical,keyCertSign";
    for (subject, simple) in [
        ("/O=Fed/OU=A/CN=Root", true),
        ("/C=EE/O=Fed/CN=Juur~õäöü", true),
        ("/O=Fed/OU=A/OU=B/CN=Root", false),
        ("/DC=ee/DC=example/CN=Root", false),
        ("/O=Fed+CN=Root", false),
    ] {
        directory.accepts(&format!("{make} -utf8 -subj {subject}"));
        let loaded = Authority::load(&directory.read("ca.pem"), &directory.read("key.pem"));
        match loaded {
            Ok(authority) => {
                assert!(simple, "{subject}");
                let key = SystemKeys.generate(Algorithm::EcdsaP256).unwrap();
                let begin = authority.certificate().not_before();
                let request = LeafRequest {
                    usage: Usage::Link,
                    common_name: "x".to_owned(),
                    uri: "saatkond://EE/link?use=link".to_owned(),
                    dns_names: vec!["ee.link.saatkond.internal".to_owned()],
                };
                let terms = Terms {
                    now: begin,
                    lifetime: SignedDuration::from_hours(24),
                    retirement: SignedDuration::ZERO,
                    serial: Serial::from_random([7; 16]),
                };
                directory.write("leaf.pem", leaf::issue(&authority, &request, key.public(), &terms).unwrap().pem);
                directory.accepts(&format!("verify -attime {} -CAfile ca.pem leaf.pem", begin.as_second()));
            }
            Err(error) => {
                assert!(!simple, "{subject}: {error}");
                assert!(matches!(error, AuthorityError::Name { .. }), "{subject}: {error}");
            }
        }
    }
    directory.accepts(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out ca.pem -subj /CN=x -days 30",
    );
    let error = Authority::load(&directory.read("ca.pem"), &directory.read("key.pem")).unwrap_err();
    assert!(matches!(error, AuthorityError::NotAuthority { .. }), "no key usage: {error}");
}

/// A certificate that somebody makes alone, with all the right names.
#[test]
fn a_self_made_leaf_is_refused() {
    let directory = Directory::new();
    let bundle = Bundle::new([authority(Algorithm::EcdsaP256).certificate().clone()]).unwrap();
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -outform DER -out leaf.der -days 30 \
                -addext basicConstraints=critical,CA:FALSE -addext keyUsage=digitalSignature \
                -addext extendedKeyUsage=serverAuth,clientAuth";
    directory
        .accepts(&format!("{make} -subj /O=Saatkond/CN=gw1 -addext subjectAltName=URI:saatkond://EE/GOV/70000001/gw1"));
    let der = std::fs::read(directory.path("leaf.der")).unwrap();
    let result = verify_leaf(&der, &[], &bundle, Usage::Authentication, at(NOW));
    assert!(matches!(result, Err(VerifyError::SelfSigned { .. })), "{result:?}");
}
