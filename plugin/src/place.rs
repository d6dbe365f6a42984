//! Naming a security server on the command line.

/// A SecurityServer by its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Reads `namespace/name`.
pub fn server(text: &str) -> Result<Place, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Place { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => {
            Err("expected the namespace and the name of a SecurityServer, for example population-register/ss1"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_its_namespace() {
        assert_eq!(server("n/ss1"), Ok(Place { namespace: "n".into(), name: "ss1".into() }));
        for wrong in ["ss1", "/ss1", "n/", "a/b/c", ""] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }
}
