//! The link's messages between a gateway and its operator. The poll is the receipt: it states what the process has
//! loaded, and asks for what is newer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The path of [`Poll`].
pub const POLL_PATH: &str = "/v1/poll";
/// The path of [`Goodbye`].
pub const GOODBYE_PATH: &str = "/v1/goodbye";
/// The longest time that a poll is held open, in seconds: below the idle limits of common middleboxes (60 s).
pub const MAX_WAIT_SECONDS: u32 = 55;
/// The largest poll accepted, in bytes.
pub const MAX_POLL_BYTES: usize = 16 << 10;

/// The name under which the link's certificate is issued and asked for (SNI) for a trust anchor.
#[must_use]
pub fn server_name(trust_anchor: &str) -> String {
    format!("{trust_anchor}.link.saatkond.internal")
}

/// One running instance of a gateway: a pod and how often its container has started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// The UID of the pod.
    pub pod_uid: String,
    /// A counter in the pod's emptyDir, raised and synced at each start of the container.
    pub incarnation: u64,
}

/// What a process holds and serves with. A statement about the past tense only: *loaded*, never *received*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// `version` of the instance configuration.
    pub instance_version: u64,
    /// `version` of the server configuration.
    pub server_version: u64,
    /// `bundleSequence` of the instance configuration.
    pub bundle_sequence: u64,
    /// SHA-256 of the bundle in force, in hex: the same sequence with another content is a fault worth seeing.
    pub bundle_hash: String,
    /// The highest issue number of the identity in use.
    pub leaf_issue_number: u64,
    /// The serial number of the authentication leaf presented in new handshakes, in hex.
    pub leaf_serial: String,
    /// Of all sessions that are open: the generations of the authorities that issued their leaves, this process's and its peers',
    /// other than the one that signs now; ascending. Absent from a process that does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_sessions: Option<Vec<u64>>,
    /// When this process began to serve, if it did so without having met the link or any peer (design §6.2 b): from then until it
    /// met somebody it may have run on what the federation had left behind. Absent for every other start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_alone: Option<Timestamp>,
}

/// A gateway's question and receipt. Who asks is known from the client certificate, not from the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Poll {
    /// The format of this message.
    pub format: u32,
    /// The highest document format that this process can read.
    pub highest_format: u32,
    /// Which process asks.
    pub process: ProcessId,
    /// What it has loaded; absent while it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Loaded>,
    /// The instance configuration at hand, loaded or not: only a newer one is worth sending. 0 for none.
    pub have_instance_version: u64,
    /// The server configuration at hand. 0 for none.
    pub have_server_version: u64,
    /// The highest issue number of the identity at hand. 0 for none.
    pub have_issue_number: u64,
    /// What the last answer named. Something may be named that cannot be had yet (the leaf's mount is late) or at all (the document
    /// is refused here): it is no news a second time, or such a process would be answered at once, for ever.
    #[serde(default)]
    pub told: Told,
    /// How long to hold the answer back while there is nothing new, in seconds; at most [`MAX_WAIT_SECONDS`].
    /// A process that has not loaded anything yet is answered at once, from a quorum read.
    pub wait_seconds: u32,
}

/// The numbers that an answer named to a process. All 0 while there was none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// Of the instance configuration.
    pub instance_version: u64,
    /// Of the server configuration.
    pub server_version: u64,
    /// Of the identity.
    pub issue_number: u64,
}

impl Poll {
    /// Whether an answer with these numbers is worth ending the wait for: one of them is above what the process has, and another
    /// than it was told of last. Not "above": a number that somebody set too high would make all that comes after it no news.
    #[must_use]
    pub fn is_news(&self, now: &Told) -> bool {
        let Self { told, have_instance_version, have_server_version, have_issue_number, .. } = self;
        let is_newer = |now: u64, have: u64, told: u64| now > have && now != told;
        is_newer(now.instance_version, *have_instance_version, told.instance_version)
            || is_newer(now.server_version, *have_server_version, told.server_version)
            || is_newer(now.issue_number, *have_issue_number, told.issue_number)
    }
}

/// The answer to [`Poll`], given only after the receipt in it has been stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PollAnswer {
    /// The format of this message.
    pub format: u32,
    /// The published version of the instance configuration.
    pub instance_version: u64,
    /// The published version of the server configuration.
    pub server_version: u64,
    /// The highest issue number that has been stored for this server: a process that holds less waits for its mount.
    pub issue_number: u64,
    /// The signed instance configuration in Base64, when newer than the one at hand.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "packed")]
    pub instance: Option<Vec<u8>>,
    /// The signed server configuration in Base64, when newer than the one at hand.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "packed")]
    pub server: Option<Vec<u8>>,
}

impl PollAnswer {
    /// What it names.
    #[must_use]
    pub fn names(&self) -> Told {
        let Self { instance_version, server_version, issue_number, .. } = *self;
        Told { instance_version, server_version, issue_number }
    }
}

/// A process says that it has ended: its last listener is closed and nothing is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Goodbye {
    /// The format of this message.
    pub format: u32,
    /// Which process ended.
    pub process: ProcessId,
}

/// Why the link refused; the body of every answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// A CamelCase word for programs, for example `UnknownKey`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

mod packed {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    // serde's `with` hands over references to the field's own type.
    #[allow(clippy::ref_option)]
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| STANDARD.decode(text).map_err(|_| de::Error::custom("not Base64")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_or_was_told_of_is_no_news() {
        let numbers =
            |instance_version, server_version, issue_number| Told { instance_version, server_version, issue_number };
        let poll = |have: Told, told: Told| Poll {
            format: 1,
            highest_format: 1,
            process: ProcessId { pod_uid: "p".into(), incarnation: 1 },
            loaded: None,
            have_instance_version: have.instance_version,
            have_server_version: have.server_version,
            have_issue_number: have.issue_number,
            told,
            wait_seconds: 0,
        };
        let (none, have) = (Told::default(), numbers(5, 5, 5));
        for newer in [numbers(6, 5, 5), numbers(5, 6, 5), numbers(5, 5, 6)] {
            assert!(poll(have, none).is_news(&newer), "{newer:?}");
            assert!(!poll(have, newer).is_news(&newer), "told: {newer:?}");
            assert!(!poll(newer, none).is_news(&newer), "had: {newer:?}");
            assert!(!poll(newer, none).is_news(&have), "older: {newer:?}");
            assert!(poll(have, numbers(99, 99, 99)).is_news(&newer), "told of what there never was: {newer:?}");
        }
        // A gateway of before says nothing of what it was told.
        let mut text = serde_json::to_value(poll(have, have)).unwrap();
        text.as_object_mut().unwrap().remove("told");
        assert_eq!(serde_json::from_value::<Poll>(text).unwrap().told, none);
    }

    #[test]
    fn an_answer_survives_its_text_and_unknown_fields_are_ignored() {
        let answer = PollAnswer {
            format: 1,
            instance_version: 3,
            server_version: 2,
            issue_number: 1,
            instance: Some(vec![0, 255, 7]),
            server: None,
        };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<PollAnswer>(&text).unwrap(), answer);
        let newer = text.replacen('{', r#"{"later":true,"#, 1);
        assert_eq!(serde_json::from_str::<PollAnswer>(&newer).unwrap(), answer);
        assert!(serde_json::from_str::<PollAnswer>(&text.replace("AP8H", "A?")).is_err());
    }
}
