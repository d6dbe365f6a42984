//! Who is at the other end: the public key of a peer's leaf, looked up among those that the controller has registered.
//!
//! A chain to some authority proves nothing here (design §6.17): a key counts only while it stands in
//! `SecurityServer.status.registeredKeys`, where nobody but the controller writes it, when it issues.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt as _;
use saatkond_api::SecurityServer;

use super::documents::ServerKey;

/// All registered keys with their servers.
#[derive(Debug, Default)]
pub struct Peers {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    servers: HashMap<ServerKey, Arc<SecurityServer>>,
    keys: HashMap<String, ServerKey>,
}

impl Seen {
    fn remove(&mut self, key: &ServerKey) {
        if let Some(old) = self.servers.remove(key) {
            for hash in hashes(&old) {
                // Only where the key is still this server's: another may have been given it meanwhile.
                if self.keys.get(&hash) == Some(key) {
                    self.keys.remove(&hash);
                }
            }
        }
    }

    fn insert(&mut self, server: Arc<SecurityServer>) {
        let key = key_of(&server);
        self.remove(&key);
        for hash in hashes(&server) {
            self.keys.insert(hash, key.clone());
        }
        self.servers.insert(key, server);
    }
}

fn hashes(server: &SecurityServer) -> impl Iterator<Item = String> {
    server.status.iter().flat_map(|status| &status.registered_keys).map(|key| key.spki_sha256.clone())
}

/// Namespace and name.
#[must_use]
pub fn key_of(server: &SecurityServer) -> ServerKey {
    (server.namespace().unwrap_or_default(), server.name_any())
}

impl Peers {
    /// A SecurityServer is there.
    pub fn keep(&self, server: SecurityServer) {
        self.lock().insert(Arc::new(server));
    }

    /// A SecurityServer is gone, and its keys with it.
    pub fn drop(&self, server: &SecurityServer) {
        self.lock().remove(&key_of(server));
    }

    /// Replaces everything: what a fresh list does not have is gone.
    pub fn replace(&self, servers: Vec<SecurityServer>) {
        let mut fresh = Seen::default();
        for server in servers {
            fresh.insert(Arc::new(server));
        }
        *self.lock() = fresh;
    }

    /// The server whose key this is, while it is registered and its leaf is valid.
    #[must_use]
    pub fn find(&self, spki_sha256: &str, now: Timestamp) -> Option<Arc<SecurityServer>> {
        let seen = self.lock();
        let server = seen.servers.get(seen.keys.get(spki_sha256)?)?;
        is_registered(server, spki_sha256, now).then(|| server.clone())
    }

    /// The server, as seen last.
    #[must_use]
    pub fn get(&self, key: &ServerKey) -> Option<Arc<SecurityServer>> {
        self.lock().servers.get(key).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the key is registered for the server and its leaf still valid.
#[must_use]
pub fn is_registered(server: &SecurityServer, spki_sha256: &str, now: Timestamp) -> bool {
    let mut keys = server.status.iter().flat_map(|status| &status.registered_keys);
    keys.any(|key| key.spki_sha256 == spki_sha256 && now < key.not_after.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, keys: &[(&str, &str)]) -> SecurityServer {
        let keys: Vec<_> = keys
            .iter()
            .map(|(hash, until)| serde_json::json!({"spkiSha256": hash, "issueNumber": 1, "notAfter": until}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer",
            "metadata": {"namespace": "police", "name": name},
            "spec": {"memberRef": {"name": "police"}, "serverCode": name},
            "status": {"registeredKeys": keys},
        }))
        .unwrap()
    }

    fn found(peers: &Peers, hash: &str, now: &str) -> Option<String> {
        peers.find(hash, now.parse().unwrap()).map(|server| server.name_any())
    }

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn a_key_is_known_while_it_is_registered_and_valid() {
        let peers = Peers::default();
        peers.keep(server("ss1", &[("a", "2026-01-01T00:00:01Z"), ("b", "2027-01-01T00:00:00Z")]));
        peers.keep(server("ss2", &[("c", "2027-01-01T00:00:00Z")]));
        assert_eq!(found(&peers, "a", NOW).as_deref(), Some("ss1"));
        assert_eq!(found(&peers, "a", "2026-01-01T00:00:01Z"), None, "the leaf has expired");
        assert_eq!(found(&peers, "c", NOW).as_deref(), Some("ss2"));
        assert_eq!(found(&peers, "d", NOW), None);
        peers.keep(server("ss1", &[("b", "2027-01-01T00:00:00Z")]));
        assert_eq!(found(&peers, "a", NOW), None, "no longer registered");
        assert_eq!(found(&peers, "b", NOW).as_deref(), Some("ss1"));
        peers.drop(&server("ss1", &[]));
        assert_eq!(found(&peers, "b", NOW), None, "its server is gone");
    }

    #[test]
    fn a_fresh_list_forgets_what_it_has_not() {
        let peers = Peers::default();
        peers.keep(server("ss1", &[("a", "2027-01-01T00:00:00Z")]));
        peers.replace(vec![server("ss2", &[("c", "2027-01-01T00:00:00Z")])]);
        assert_eq!(found(&peers, "a", NOW), None);
        assert_eq!(found(&peers, "c", NOW).as_deref(), Some("ss2"));
    }
}
