//! Who may be whom: whether a namespace may claim a member identity, and who of several that may holds it.

use std::fmt::Write as _;

use kube::{Resource, ResourceExt};
use saatkond_api::admission::{self, MemberIdentity};
use saatkond_api::conditions::{ConditionType, Holds, Reason, find};
use saatkond_api::names::finalizer;
use saatkond_api::v1alpha1::trust_anchor::AdmissionMode;
use saatkond_api::{Member, TrustAnchor};
use saatkond_wire::configuration::{InstanceConfiguration, MemberEntry};
use saatkond_wire::identifier::MemberId;

use crate::duplicates::age;
use crate::observed::{AdmissionPolicy, Candidate, NamespaceAccess, ObservedNamespace};

/// A claim that is refused: why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For machines.
    pub reason: Reason,
    /// For people, with the command to run.
    pub message: String,
}

/// The identity that a member claims under an anchor.
#[must_use]
pub fn identity(anchor: &TrustAnchor, member: &Member) -> MemberIdentity {
    MemberIdentity {
        instance: anchor.spec.instance.clone(),
        member_class: member.spec.member_class.clone(),
        member_code: member.spec.member_code.clone(),
    }
}

/// The same, as it stands in documents and certificates.
#[must_use]
pub fn member_id(anchor: &TrustAnchor, member: &Member) -> MemberId {
    MemberId {
        instance: anchor.spec.instance.to_string(),
        member_class: member.spec.member_class.to_string(),
        member_code: member.spec.member_code.to_string(),
    }
}

/// The entry of a member in a published instance configuration.
#[must_use]
pub fn entry<'a>(published: Option<&'a InstanceConfiguration>, class: &str, code: &str) -> Option<&'a MemberEntry> {
    published?.members.iter().find(|entry| entry.member_class == class && entry.member_code == code)
}

/// Whether the operator may work in a namespace.
pub fn namespace(namespace: &ObservedNamespace) -> Result<(), Refusal> {
    let (name, elsewhere) = (&namespace.name, elsewhere(namespace));
    match namespace.access {
        NamespaceAccess::Granted => Ok(()),
        NamespaceAccess::Denied => Err(Refusal {
            reason: Reason::NamespaceNotAdmitted,
            message: format!(
                "the operator has no rights in namespace {name}; the governing authority runs: kubectl saatkond admit {name}{elsewhere}"
            ),
        }),
        NamespaceAccess::Unknown => Err(Refusal {
            reason: Reason::Pending,
            message: format!("it is not known yet whether the operator has rights in namespace {name}"),
        }),
    }
}

/// What the command needs where the operator is not in the namespace that the plugin takes for granted.
fn elsewhere(namespace: &ObservedNamespace) -> String {
    if namespace.operator == DEFAULT_NAMESPACE {
        return String::new();
    }
    format!(" --operator-namespace {}", namespace.operator)
}

/// The namespace that the plugin takes for the operator's unless told otherwise.
pub const DEFAULT_NAMESPACE: &str = "saatkond-system";

/// Whether a namespace may claim an identity. `registered`: see [`is_registered`].
///
/// Without the policy that guards the annotation anybody could write it, so nothing new is admitted; what is
/// registered stays, or a chart upgrade that goes wrong would take the federation apart. A namespace that has not been
/// seen is treated the same way: an answer from half-filled caches neither admits nor throws out.
pub fn claim(
    mode: AdmissionMode,
    policy: AdmissionPolicy,
    namespace: Option<&ObservedNamespace>,
    identity: &MemberIdentity,
    registered: bool,
) -> Result<(), Refusal> {
    if mode == AdmissionMode::Open {
        return Ok(());
    }
    let Some(namespace) = namespace else {
        let message = "the namespace has not been seen yet".to_owned();
        return if registered { Ok(()) } else { Err(Refusal { reason: Reason::Pending, message }) };
    };
    let (allowed, malformed) = admission::parse(namespace.identities.as_deref().unwrap_or_default());
    if !allowed.contains(identity) {
        let (name, word) = (&namespace.name, shell_word(&identity.to_string()));
        let mut message = format!(
            "namespace {name} may not claim {identity}; the governing authority runs: kubectl saatkond admit {name} {word}{}",
            elsewhere(namespace)
        );
        if let Some((entry, error)) = malformed.first() {
            let entry: String = entry.chars().take(80).collect();
            // Writing to a String cannot fail.
            let _ = write!(message, " (the annotation holds \"{entry}\", which is no identity: {error})");
        }
        return Err(Refusal { reason: Reason::IdentityNotAdmitted, message });
    }
    if policy == AdmissionPolicy::Missing && !registered {
        let message = "the ValidatingAdmissionPolicy saatkond-member-identities or its binding is missing, so the \
                       annotation proves nothing and nobody new is admitted; install it with the chart"
            .to_owned();
        return Err(Refusal { reason: Reason::AdmissionPolicyMissing, message });
    }
    Ok(())
}

/// Who of several members holds an identity: of those that may claim it and are not being deleted, the oldest.
/// `candidates`: all that claim it, those on their way out too.
#[must_use]
pub fn holder<'a>(
    anchor: &TrustAnchor,
    policy: AdmissionPolicy,
    published: Option<&InstanceConfiguration>,
    candidates: impl IntoIterator<Item = &'a Candidate>,
) -> Option<&'a Candidate> {
    let able: Vec<_> = candidates.into_iter().filter(|candidate| may_hold(anchor, candidate)).collect();
    able.iter()
        .copied()
        .filter(|candidate| {
            let member = &*candidate.member;
            let others = able.iter().map(|other| &*other.member).filter(|other| other.uid() != member.uid());
            member.meta().deletion_timestamp.is_none()
                && claim(
                    anchor.spec.admission,
                    policy,
                    candidate.namespace.as_deref(),
                    &identity(anchor, member),
                    is_registered(published, member, others),
                )
                .is_ok()
        })
        .min_by_key(|candidate| age(&*candidate.member))
}

/// Whether a candidate could hold the identity, the policy aside: whose namespace may not claim it changes nothing for others.
#[must_use]
pub fn may_hold(anchor: &TrustAnchor, candidate: &Candidate) -> bool {
    let (mode, identity) = (anchor.spec.admission, identity(anchor, &candidate.member));
    // Where a namespace has not been seen only the finalizer tells the one that holds it from one that never might.
    (candidate.namespace.is_some() || is_guarded(&candidate.member))
        && claim(mode, AdmissionPolicy::Installed, candidate.namespace.as_deref(), &identity, true).is_ok()
}

/// Whether the entry in the published configuration is this member's. `others`: who else could hold its identity.
///
/// A document tells identities, not objects, and what only the status tells is the operator's word: without it anybody who claims
/// what another has registered would pass for registered, and push the other out if he is older. Where nobody else claims it, or
/// nobody else who is guarded and none is known by the status, the entry is enough: a status may be a moment behind, or lost.
/// Where no document can be read, the status is enough: one that somebody has deleted is published anew with whom it had.
pub fn is_registered<'a>(
    published: Option<&InstanceConfiguration>,
    member: &Member,
    others: impl IntoIterator<Item = &'a Member>,
) -> bool {
    if says_registered(member) {
        return published.is_none_or(|document| {
            entry(Some(document), &member.spec.member_class, &member.spec.member_code).is_some()
        });
    }
    let others: Vec<_> = others.into_iter().collect();
    let alone = others.is_empty()
        || is_guarded(member) && !others.iter().any(|other| is_guarded(other) || says_registered(other));
    alone && entry(published, &member.spec.member_class, &member.spec.member_code).is_some()
}

/// Whether the operator has said that the member is registered.
#[must_use]
pub fn says_registered(member: &Member) -> bool {
    let conditions = member.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    find(conditions, ConditionType::Registered)
        .is_some_and(|it| it.status == Holds::True.as_str() || it.reason == Reason::UpdatePending.as_str())
}

/// Whether a member's finalizer is set. Nothing is registered without: else a deletion could overtake deregistration.
#[must_use]
pub fn is_guarded(member: &Member) -> bool {
    member.finalizers().iter().any(|name| name == finalizer::MEMBER)
}

/// A text as one word of a POSIX shell. Identifiers may hold quotes, parentheses and question marks.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._,+%".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace_with(identities: Option<&str>) -> ObservedNamespace {
        ObservedNamespace {
            operator: DEFAULT_NAMESPACE.into(),
            name: "benefits".into(),
            identities: identities.map(Into::into),
            access: NamespaceAccess::Denied,
            terminating: false,
        }
    }

    #[test]
    fn claims() {
        use AdmissionMode::{Annotated, Open};
        use AdmissionPolicy::{Installed, Missing};
        let identity: MemberIdentity = "EE/GOV/70000002".parse().unwrap();
        let (none, other, own) = (None, Some("EE/GOV/70000003"), Some("EE/GOV/70000003, EE/GOV/70000002"));
        for (name, mode, policy, annotation, registered, expected) in [
            ("annotated", Annotated, Installed, own, false, None),
            ("no annotation", Annotated, Installed, none, false, Some(Reason::IdentityNotAdmitted)),
            ("another identity", Annotated, Installed, other, false, Some(Reason::IdentityNotAdmitted)),
            ("taken away", Annotated, Installed, other, true, Some(Reason::IdentityNotAdmitted)),
            ("unguarded, new", Annotated, Missing, own, false, Some(Reason::AdmissionPolicyMissing)),
            ("unguarded, registered", Annotated, Missing, own, true, None),
            ("unguarded, taken away", Annotated, Missing, none, true, Some(Reason::IdentityNotAdmitted)),
            ("open", Open, Missing, none, false, None),
        ] {
            let found = claim(mode, policy, Some(&namespace_with(annotation)), &identity, registered);
            assert_eq!(found.err().map(|refusal| refusal.reason), expected, "{name}");
        }
        assert!(claim(Annotated, Installed, None, &identity, true).is_ok(), "unseen, registered");
        assert!(claim(Annotated, Installed, None, &identity, false).is_err(), "unseen, new");
    }

    #[test]
    fn refusals_name_the_command() {
        let identity: MemberIdentity = "EE/GOV/70000002".parse().unwrap();
        let seen = namespace_with(Some("EE/GOV"));
        let refusal = claim(AdmissionMode::Annotated, AdmissionPolicy::Installed, Some(&seen), &identity, false);
        let message = refusal.unwrap_err().message;
        assert!(message.contains("kubectl saatkond admit benefits EE/GOV/70000002"), "{message}");
        assert!(message.contains("\"EE/GOV\""), "{message}");
        let message = namespace(&seen).unwrap_err().message;
        assert!(message.ends_with("kubectl saatkond admit benefits"), "{message}");
    }

    #[test]
    fn commands_survive_a_shell() {
        for (text, word) in [("EE/GOV/1", "EE/GOV/1"), ("EE/G(V/1?", "'EE/G(V/1?'"), ("EE/O'N/1", r"'EE/O'\''N/1'")] {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn the_command_names_the_operators_namespace_where_it_is_not_the_usual_one() {
        let denied = |operator: &str| {
            let namespace = ObservedNamespace {
                access: NamespaceAccess::Denied,
                operator: operator.into(),
                ..namespace_with(None)
            };
            self::namespace(&namespace).unwrap_err().message
        };
        assert!(
            denied("saatkond-system").ends_with("kubectl saatkond admit benefits"),
            "{}",
            denied("saatkond-system")
        );
        assert!(
            denied("trust").ends_with("kubectl saatkond admit benefits --operator-namespace trust"),
            "{}",
            denied("trust")
        );
        let namespace = ObservedNamespace { operator: "trust".into(), ..namespace_with(None) };
        let identity: MemberIdentity = "EE/GOV/70000002".parse().unwrap();
        let refused = claim(AdmissionMode::Annotated, AdmissionPolicy::Installed, Some(&namespace), &identity, false);
        let message = refused.unwrap_err().message;
        assert!(message.contains("admit benefits EE/GOV/70000002 --operator-namespace trust"), "{message}");
    }
}
