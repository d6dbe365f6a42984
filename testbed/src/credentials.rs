//! Keys, certificates and kubeconfigs of the components of one Kubernetes.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::{Result, error::Doing as _, layout::write_whole};

/// The certificate authority of one Kubernetes, and the folder its files go to.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// Makes an authority, and the key that service account tokens are signed with.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let mut params = params("saatkond-testbed", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let authority =
            Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, folder: folder.to_owned() };
        authority.write("ca.crt", &authority.issuer.pem())?;
        authority.write("ca.key", &authority.issuer.key().serialize_pem())?;
        let accounts = KeyPair::generate()?;
        authority.write("service-accounts.key", &accounts.serialize_pem())?;
        authority.write("service-accounts.pub", &accounts.public_key_pem())?;
        Ok(authority)
    }

    /// A serving certificate: `NAME.crt` and `NAME.key`.
    pub(crate) fn server(&self, name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<()> {
        let mut params = params(name, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for dns in names {
            params.subject_alt_names.push(SanType::DnsName((*dns).try_into()?));
        }
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        let (certificate, key) = self.leaf(params)?;
        self.write(&format!("{name}.crt"), &certificate)?;
        self.write(&format!("{name}.key"), &key)
    }

    /// A client certificate for `user` in `groups`.
    pub(crate) fn client(&self, name: &str, user: &str, groups: &[&str]) -> Result<()> {
        let (certificate, key) = self.client_pair(user, groups)?;
        self.write(&format!("{name}.crt"), &certificate)?;
        self.write(&format!("{name}.key"), &key)
    }

    /// A kubeconfig for `user` in `groups` that needs no other file.
    pub(crate) fn kubeconfig(&self, path: &Path, server: &str, user: &str, groups: &[&str]) -> Result<()> {
        let (certificate, key) = self.client_pair(user, groups)?;
        let login = serde_json::json!({
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        });
        let text = kubeconfig_text(server, &STANDARD.encode(self.issuer.pem()), user, &login);
        write_secret(path, &text)
    }

    fn client_pair(&self, user: &str, groups: &[&str]) -> Result<(String, String)> {
        let mut params = params(user, groups)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(params)
    }

    fn leaf(&self, mut params: CertificateParams) -> Result<(String, String)> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        write_secret(&self.folder.join(name), text)
    }
}

fn params(common_name: &str, organisations: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    // Kubernetes reads groups from the organisation. rcgen keeps one value per type, so one group is what there is.
    for organisation in organisations {
        name.push(DnType::OrganizationName, *organisation);
    }
    params.distinguished_name = name;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1); // tests skew clocks a little
    params.not_after = now + Duration::days(365);
    params.serial_number = Some(SerialNumber::from(uuid::Uuid::new_v4().as_bytes().to_vec()));
    Ok(params)
}

/// A kubeconfig of one cluster and one user. JSON, which is YAML too.
pub(crate) fn kubeconfig_text(server: &str, ca_base64: &str, user: &str, login: &serde_json::Value) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority-data": ca_base64}}],
        "users": [{"name": user, "user": login}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": user}}],
        "current-context": "context",
    })
    .to_string()
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    write_whole(path, text.as_bytes())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).doing(|| format!("protect {}", path.display()))
}
