//! Conditions: their types, their reasons with what each means and what to do, and how a list of them is updated.
//!
//! [`ConditionType`] and [`Reason`] are the single source of `docs/reference/conditions.md`, of event reasons and of
//! metric labels. Time is an argument: a condition's `lastTransitionTime` changes with its status and never else.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Declares an enum whose variants are documented constants: the doc comment is the user's documentation too.
macro_rules! documented {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $($(#[doc = $text:literal])+ $variant:ident,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $text])+ $variant,)+ }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that stands in the condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// What it means, for users.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($text,)+).trim_ascii(),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

documented! {
    /// The type of a condition. Each is a statement that should hold: `True` is good.
    pub enum ConditionType {
        /// Everything that the spec asks for is done and works. All kinds.
        Ready,
        /// The namespace and the identity are admitted by the governing authority. Member, SecurityServer.
        Admitted,
        /// An authority with a key at hand can issue certificates. TrustAnchor.
        AuthorityAvailable,
        /// No change of the authority is held up: none is under way, or the next step needs nobody. TrustAnchor.
        RotationUnblocked,
        /// Claims of member identities are guarded: the admission mode is `Annotated` and its policy is installed. TrustAnchor.
        AdmissionGuarded,
        /// What the object asks for stands in the published, signed configuration. TrustAnchor, SecurityServer.
        ConfigurationPublished,
        /// The member stands in the published instance configuration. Member.
        Registered,
        /// Everything that the spec refers to exists and is usable: servers, groups, descriptions. Member, SecurityServer.
        ReferencesResolved,
        /// The server's certificates and keys are issued, current and stored. SecurityServer.
        IdentityIssued,
        /// Each process has stated that it runs on the published bundle and identity. SecurityServer.
        ConfigurationLoaded,
        /// All objects that run the server exist as they should. SecurityServer.
        ChildrenApplied,
        /// Enough processes are ready to serve, and all of them are as declared now. SecurityServer.
        Available,
    }
}

documented! {
    /// The reason of a condition: one word for machines. The same words are event reasons and metric labels.
    pub enum Reason {
        /// It holds; there is nothing to do.
        AsDeclared,
        /// Not looked at yet; wait some seconds.
        Pending,
        /// `saatkond.io/paused: "true"` stops what the spec asks for. Remove the annotation to go on.
        Paused,
        /// The object is being deleted: it is taken out of the published configuration before its pods go.
        Deregistering,
        /// The spec contradicts itself in a way that admission could not see; the message says where.
        InvalidSpec,
        /// Another condition of this object does not hold; the message names it.
        Waiting,

        /// The namespace has no RoleBinding for the operator. The governing authority runs `kubectl saatkond admit NAMESPACE`.
        NamespaceNotAdmitted,
        /// The namespace may not claim this identity. The governing authority runs `kubectl saatkond admit NAMESPACE IDENTITY`.
        IdentityNotAdmitted,
        /// The trust anchor's admission is `Open`: any namespace may claim any identity. For development only.
        AdmissionOpen,
        /// The ValidatingAdmissionPolicy that guards the annotation is missing, so nothing new is admitted. Install it with the chart.
        AdmissionPolicyMissing,
        /// Another, older Member has this identity; the older stays. Delete one of the two.
        DuplicateIdentity,
        /// Another, older TrustAnchor has this instance; the older stays. Delete one of the two.
        DuplicateInstance,
        /// Another, older SecurityServer of the same owner has this code; the older stays. Delete one of the two.
        DuplicateServerCode,

        /// It is registered, and the next configuration will list what has been added since; the message names it.
        UpdatePending,

        /// The TrustAnchor that is referred to does not exist.
        TrustAnchorNotFound,
        /// The TrustAnchor that is referred to is not ready; its own conditions say why.
        TrustAnchorNotReady,
        /// The Member that is referred to does not exist in this namespace.
        MemberNotFound,
        /// The Member that is referred to is not admitted; its own conditions say why.
        MemberNotAdmitted,
        /// No security server serves the member: create one, or name one in a subsystem's `servers`.
        NoSecurityServer,
        /// A SecurityServer that a subsystem names does not exist.
        SecurityServerNotFound,
        /// A subsystem names another member's server that does not list this member in its `guests`.
        GuestNotAccepted,
        /// A member in `guests` does not name this server in any of its subsystems' `servers`.
        GuestNotConfirmed,
        /// An access right names a local group that the subsystem does not have.
        LocalGroupNotFound,
        /// An access right names a global group that the trust anchor does not have.
        GlobalGroupNotFound,
        /// The ConfigMap or its entry with a service's OpenAPI document does not exist.
        DescriptionNotFound,
        /// A service's OpenAPI document cannot be read; the message says where.
        DescriptionInvalid,

        /// The external source names no signing key, so nothing can be issued; servers keep the certificates they have.
        SigningKeyMissing,
        /// The signing key belongs to none of the source's certificates.
        SigningKeyMismatch,
        /// A certificate of the source cannot be read or is not fit for an authority; the message says why.
        CertificateInvalid,
        /// The authority's certificate ends so soon that no full-length certificate can be issued under it.
        AuthorityExpiring,
        /// The authority's certificate has expired: security servers no longer trust each other.
        AuthorityExpired,
        /// The Secret with the authority's key is gone or damaged; no other authority is made in its place. Restore it from a backup.
        AuthorityLost,
        /// No configuration key that security servers know is left, so nothing can be published. Restore the Secret from a backup.
        ConfigurationKeyLost,

        /// A certificate was not renewed in time; issuing fails, the message says why.
        RenewalOverdue,
        /// Certificates and keys are being issued.
        Issuing,
        /// The newest configuration or identity is published and some process has not stated that it has loaded it; the message names them.
        ReceiptsPending,
        /// It holds, but a process began to serve before it had met the operator or any other server, and may for a while have run on a
        /// configuration that was not the newest: whoever had been taken out meanwhile was still served. The message names it
        /// and since when. Nothing to do if nobody was; it goes with the process.
        StartedAlone,
        /// No process of the server has reported.
        NoProcess,
        /// A pod is gone and nobody has learnt that its process has ended. Once you know that it does not run, name it in
        /// `TrustAnchor.spec.rotation.excluded`.
        Vanished,
        /// Too few processes are ready; the message names the pods that are not and why.
        PodsNotReady,
        /// Enough processes are ready, but not all are as declared now: the Deployment is being rolled out. The message says how many are, and
        /// what hinders it, say an image that cannot be pulled; the server serves meanwhile.
        RollingOut,
        /// `replicas` is 0: the server is out of service by its spec.
        ScaledToZero,

        /// An object with the name of one of ours exists and is not ours; it is never overwritten. Rename or delete it.
        ForeignObject,
        /// The API server refused a request of the operator for want of rights; the message names verb and object.
        Forbidden,
        /// A request of the operator failed and is repeated with growing intervals; the message says why.
        ApplyFailed,
        /// The namespace is being deleted.
        NamespaceTerminating,

        /// A change of the authority waits for processes; the message names them and what each has not stated yet.
        RotationWaiting,
        /// Event: a change of the authority has reached its next phase.
        RotationAdvanced,
        /// Event: certificates of a security server are revoked.
        CertificatesRevoked,
        /// Event: somebody else may have the key of an authority; of its certificates those alone are accepted that Saatkond has issued.
        AuthorityCompromised,
        /// Event: the key of an authority that issues no more was deleted.
        AuthorityDestroyed,
        /// Event: a certificate authority was made.
        AuthorityCreated,
        /// Event: certificates and keys were issued.
        IdentityIssued,
        /// Event: a changed configuration was published.
        ConfigurationPublished,
        /// Event: an object that someone had changed or deleted was put back.
        DriftRepaired,
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holds {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    Unknown,
}

impl Holds {
    /// The word that stands in the condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What a condition states now, before it meets the time of its last change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    /// What is stated.
    pub condition: ConditionType,
    /// Whether it holds.
    pub holds: Holds,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people; with the command to run where one helps.
    pub message: String,
}

impl Statement {
    /// It holds.
    #[must_use]
    pub fn holds(condition: ConditionType, message: impl Into<String>) -> Self {
        Self { condition, holds: Holds::True, reason: Reason::AsDeclared, message: message.into() }
    }

    /// It does not hold.
    #[must_use]
    pub fn fails(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { condition, holds: Holds::False, reason, message: message.into() }
    }

    /// It is not known whether it holds.
    #[must_use]
    pub fn unknown(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { condition, holds: Holds::Unknown, reason, message: message.into() }
    }
}

/// The longest message of a condition in bytes, as the schema bounds it.
pub const MAX_MESSAGE: usize = 2048;

/// The conditions that state `statements`, given those that stand in the object.
///
/// `lastTransitionTime` is kept where the status is the same, and is `now` where it is not. Conditions that nobody
/// states any more go. The order is that of [`ConditionType`], so equal input gives byte-equal output.
#[must_use]
pub fn update(
    standing: &[Condition],
    statements: impl IntoIterator<Item = Statement>,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut statements: Vec<_> = statements.into_iter().collect();
    statements.sort_by_key(|statement| statement.condition);
    statements.dedup_by_key(|statement| statement.condition);
    statements
        .into_iter()
        .map(|statement| {
            let since = find(standing, statement.condition)
                .filter(|old| old.status == statement.holds.as_str())
                .map_or_else(|| Time(whole_seconds(now)), |old| old.last_transition_time.clone());
            Condition {
                type_: statement.condition.as_str().to_owned(),
                status: statement.holds.as_str().to_owned(),
                reason: statement.reason.as_str().to_owned(),
                message: shortened(statement.message),
                last_transition_time: since,
                observed_generation,
            }
        })
        .collect()
}

/// The condition of this type, if it stands there.
#[must_use]
pub fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == condition.as_str())
}

/// Whether the condition of this type stands there and is `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], condition: ConditionType) -> bool {
    find(conditions, condition).is_some_and(|c| c.status == "True")
}

/// `metav1.Time` has whole seconds: without cutting here, what is written and what is read back would differ and each
/// reconcile would write again.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Cuts a message at a character, so that the API server does not refuse the whole status for one long text.
fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE - 3).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push_str("...");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 700_000_000).unwrap()
    }

    fn ready(holds: bool) -> Statement {
        if holds {
            Statement::holds(ConditionType::Ready, "all is well")
        } else {
            Statement::fails(ConditionType::Ready, Reason::PodsNotReady, "pod a is not ready")
        }
    }

    #[test]
    fn time_changes_with_the_status_only() {
        let first = update(&[], [ready(false)], Some(1), at(10));
        assert_eq!(first[0].last_transition_time.0.as_second(), 10);
        let same = update(&first, [ready(false)], Some(2), at(20));
        assert_eq!(same[0].last_transition_time.0.as_second(), 10);
        assert_eq!(same[0].observed_generation, Some(2));
        let flipped = update(&same, [ready(true)], Some(2), at(30));
        assert_eq!(flipped[0].last_transition_time.0.as_second(), 30);
    }

    #[test]
    fn what_is_written_is_what_is_read_back() {
        let written = update(&[], [ready(true)], Some(1), at(10));
        let read: Vec<Condition> = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(read, written);
        assert_eq!(update(&read, [ready(true)], Some(1), at(99)), written, "nothing changed, nothing to write");
    }

    #[test]
    fn order_does_not_depend_on_the_statements() {
        let admitted = Statement::holds(ConditionType::Admitted, "");
        let one = update(&[], [admitted.clone(), ready(true)], None, at(1));
        let other = update(&[], [ready(true), admitted], None, at(1));
        assert_eq!(one, other);
        assert_eq!(one[0].type_, "Ready");
    }

    #[test]
    fn a_condition_that_nobody_states_goes() {
        let both = update(&[], [ready(true), Statement::holds(ConditionType::Admitted, "")], None, at(1));
        assert_eq!(update(&both, [ready(true)], None, at(2)).len(), 1);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        for shift in 0..3 {
            let message = format!("{}{}", "x".repeat(shift), "õ".repeat(MAX_MESSAGE));
            let cut = update(&[], [Statement::holds(ConditionType::Ready, message)], None, at(1)).remove(0).message;
            assert!(cut.len() <= MAX_MESSAGE && cut.ends_with("õ..."), "{}", cut.len());
        }
    }

    #[test]
    fn words_fit_the_schema_and_have_a_meaning() {
        let words = ConditionType::ALL.iter().map(|c| (c.as_str(), c.meaning()));
        for (word, meaning) in words.chain(Reason::ALL.iter().map(|r| (r.as_str(), r.meaning()))) {
            assert!(word.len() <= 64 && word.chars().all(|c| c.is_ascii_alphabetic()), "{word}");
            assert!(meaning.ends_with('.') && !meaning.starts_with(' '), "{word}: {meaning:?}");
        }
    }
}
