//! Access rights (gateway.md 9.1, 9.2): default deny, rights only add up, equality of clients is exact.

use std::collections::{HashMap, HashSet};

use saatkond_wire::configuration::{AccessRight, GroupEntry, Subject};
use saatkond_wire::identifier::ClientId;

use super::glob::Glob;
use super::path::ServicePath;

/// Groups by code.
#[derive(Debug, Default)]
pub struct Groups(HashMap<String, HashSet<ClientId>>);

impl Groups {
    /// Indexes the groups of a document.
    #[must_use]
    pub fn new(groups: &[GroupEntry]) -> Self {
        Self(groups.iter().map(|group| (group.code.clone(), group.members.iter().cloned().collect())).collect())
    }

    fn has(&self, code: &str, client: &ClientId) -> bool {
        self.0.get(code).is_some_and(|members| members.contains(client))
    }
}

/// The rights on one service, with their patterns ready to match.
#[derive(Debug, Default)]
pub struct Rights(Vec<Right>);

#[derive(Debug)]
struct Right {
    subject: Subject,
    /// `None` for the whole service.
    endpoints: Option<Vec<(String, Glob)>>,
}

impl Rights {
    /// Prepares the rights of a document.
    #[must_use]
    pub fn new(rights: &[AccessRight]) -> Self {
        let prepare = |right: &AccessRight| Right {
            subject: right.subject.clone(),
            endpoints: right.endpoints.as_ref().map(|endpoints| {
                endpoints.iter().map(|endpoint| (endpoint.method.clone(), Glob::new(&endpoint.path))).collect()
            }),
        };
        Self(rights.iter().map(prepare).collect())
    }

    /// Whether `caller` may use `method` on `path`. `local` are the groups of the service's own client.
    #[must_use]
    pub fn allow(&self, caller: &ClientId, method: &str, path: &ServicePath, global: &Groups, local: &Groups) -> bool {
        self.0.iter().any(|right| {
            let is_subject = match &right.subject {
                Subject::Client(client) => client == caller,
                Subject::GlobalGroup(code) => global.has(code, caller),
                Subject::LocalGroup(code) => local.has(code, caller),
            };
            is_subject
                && match (&right.endpoints, path.matched()) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(endpoints), Some(text)) => endpoints.iter().any(|(allowed, glob)| {
                        (allowed == "*" || allowed.eq_ignore_ascii_case(method)) && glob.matches(text)
                    }),
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saatkond_wire::configuration::Endpoint;

    fn client(text: &str) -> ClientId {
        text.parse().unwrap()
    }

    fn right(subject: Subject, endpoints: Option<&[(&str, &str)]>) -> AccessRight {
        let endpoints = endpoints.map(|list| {
            list.iter().map(|(method, path)| Endpoint { method: (*method).into(), path: (*path).into() }).collect()
        });
        AccessRight { subject, endpoints }
    }

    fn group(code: &str, members: &[&str]) -> Groups {
        Groups::new(&[GroupEntry { code: code.into(), members: members.iter().map(|m| client(m)).collect() }])
    }

    fn allow(rights: &[AccessRight], caller: &str, method: &str, path: &str) -> bool {
        let path = ServicePath::parse(path).unwrap();
        let (global, local) = (group("g", &["I/G/2/C"]), group("l", &["I/G/2/C"]));
        Rights::new(rights).allow(&client(caller), method, &path, &global, &local)
    }

    #[test]
    fn t107_equality_is_exact_and_the_default_is_deny() {
        let rights = [right(Subject::Client(client("I/G/2/C")), None)];
        assert!(allow(&rights, "I/G/2/C", "GET", "/x"));
        for caller in ["I/G/2/OTHER", "I/G/2", "I/G/2/c", "J/G/2/C"] {
            assert!(!allow(&rights, caller, "GET", "/x"), "{caller}");
        }
        assert!(!allow(&[], "I/G/2/C", "GET", ""));
    }

    #[test]
    fn t108_t110_groups() {
        for (subject, expected) in [
            (Subject::GlobalGroup("g".into()), true),
            (Subject::GlobalGroup("l".into()), false),
            (Subject::LocalGroup("l".into()), true),
            (Subject::LocalGroup("g".into()), false),
        ] {
            assert_eq!(allow(&[right(subject.clone(), None)], "I/G/2/C", "GET", ""), expected, "{subject:?}");
            assert!(!allow(&[right(subject, None)], "I/G/2", "GET", ""));
        }
    }

    #[test]
    fn t113_to_t117_methods_and_paths() {
        let on = |endpoints: &[(&str, &str)], method: &str, path: &str| {
            allow(&[right(Subject::Client(client("I/G/2/C")), Some(endpoints))], "I/G/2/C", method, path)
        };
        assert!(on(&[("GET", "/pets/*")], "GET", "/pets/1"));
        assert!(!on(&[("GET", "/pets/*")], "POST", "/pets/1"));
        assert!(!on(&[("GET", "/pets/*")], "GET", "/pets"));
        assert!(on(&[("*", "/pets/**")], "DELETE", "/pets/1/photo"));
        assert!(on(&[("get", "/x")], "GET", "/x"));
        assert!(!on(&[("GET", "/x")], "HEAD", "/x"));
        assert!(!on(&[], "GET", "/x"));
        assert!(!on(&[("GET", "/public/**")], "GET", "/public/a%2Fb"), "an encoded slash is no match for any pattern");
    }

    #[test]
    fn t126_rights_add_up() {
        let subject = || Subject::Client(client("I/G/2/C"));
        let rights = [right(subject(), Some(&[("GET", "/x")])), right(subject(), None)];
        assert!(allow(&rights, "I/G/2/C", "POST", "/y"));
    }
}
