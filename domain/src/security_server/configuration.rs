//! What the server configuration says: the server's clients, their services and who may call them.

use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::names::{self, role};
use saatkond_api::v1alpha1::member::{
    AccessRight as DeclaredRight, ConnectionType as Declared, Service, ServiceChoice, SubjectChoice, Subsystem,
};
use saatkond_api::v1alpha1::security_server::ErrorProfile as DeclaredProfile;
use saatkond_api::{Member, SecurityServer};
use saatkond_wire::configuration::{
    AccessRight, ClientEntry, ConnectionType, Endpoint, ErrorProfile, GroupEntry, Limits, ServerConfiguration,
    ServiceDescription, ServiceEntry, Subject,
};
use saatkond_wire::document::FORMAT;
use saatkond_wire::identifier::{ClientId, MemberId};

use super::observed::ObservedSecurityServer;
use super::registration::{Place, holder_of, registered};
use crate::admission::{is_guarded, member_id};
use crate::meta::{annotated, is_paused};
use crate::names::{label_value, server_configuration};
use crate::observed::Published;
use crate::publication::{Annotated as _, Publication};
use crate::schedule::{document_expiry, resign_at, whole_seconds};
use crate::serving::{guest_subsystems, own_subsystems, served_client};
use crate::trust_anchor::build::client_ids;

/// The spool in bytes where the spec's text says none; admission refuses such a text.
const FALLBACK_SPOOL_BYTES: u64 = 1 << 30;

/// What is concluded about the server's configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigurationState {
    /// It is published as it should be, and is signed again at this time.
    Current {
        /// Its version.
        version: u64,
        /// When it is signed again.
        resign_at: Timestamp,
    },
    /// It has to be published.
    Publish {
        /// What and where.
        publication: Box<Publication<ServerConfiguration>>,
        /// Whether someone had changed what was published.
        repair: bool,
    },
    /// There is no key to sign it with. What is published stays.
    NoKey,
    /// An object of its name is not ours.
    Foreign {
        /// The ConfigMap's name.
        name: String,
    },
}

/// Concludes whether to publish.
#[must_use]
pub fn state(seen: &ObservedSecurityServer, place: &Place<'_>, now: Timestamp) -> ConfigurationState {
    let server = &*seen.server;
    let name = server_configuration(&server.namespace().unwrap_or_default(), &server.name_any());
    if seen.configuration == Published::Foreign {
        return ConfigurationState::Foreign { name };
    }
    let uid = server.uid().unwrap_or_default();
    let standing = seen.configuration.payload();
    let remembered = server.status.as_ref().and_then(|s| s.configuration.as_ref()).map_or(0, |it| it.server_version);
    let last = standing.map_or(0, |document| document.version).max(remembered);
    let wanted = content(seen, place, now);
    let mut repair = matches!(seen.configuration, Published::Invalid { .. });
    if let Published::Valid(document) = &seen.configuration {
        let standing = &*document.payload;
        repair = standing.version < last || !document.intact;
        let due = resign_at(standing.signed_at, &uid);
        let lives = standing.expires_at.duration_since(standing.signed_at);
        let same = same_but_times(standing, &wanted)
            && lives == wanted.expires_at.duration_since(wanted.signed_at)
            // A key that has taken over signs everything anew: gateways that start later know it and its follower alone.
            && seen.configuration_key.is_none_or(|generation| generation == document.key_generation);
        if same && !repair && now < due {
            return ConfigurationState::Current { version: standing.version, resign_at: due };
        }
    }
    let Some(key_generation) = seen.configuration_key else { return ConfigurationState::NoKey };
    let payload = ServerConfiguration { version: last + 1, ..wanted };
    let namespace = server.namespace().unwrap_or_default();
    let mut meta =
        crate::meta::anchor_object(place.anchor, &seen.settings.namespace, name, role::SERVER_CONFIGURATION, None);
    let labels = meta.labels.get_or_insert_default();
    labels.insert(names::label::SECURITY_SERVER.to_owned(), label_value(&server.name_any()));
    labels.insert(names::label::SECURITY_SERVER_NAMESPACE.to_owned(), namespace);
    let publication = Publication {
        meta: annotated(meta, payload.annotations()),
        entry: names::entry::SERVER_CONFIGURATION,
        payload,
        key_generation,
        replaces: seen.configuration.replaces(),
    };
    ConfigurationState::Publish { publication: Box::new(publication), repair }
}

fn same_but_times(standing: &ServerConfiguration, wanted: &ServerConfiguration) -> bool {
    let (version, signed_at, expires_at) = (standing.version, standing.signed_at, standing.expires_at);
    ServerConfiguration { version, signed_at, expires_at, ..wanted.clone() } == *standing
}

/// What the document should say now. Its version is that of the standing one.
#[must_use]
pub fn content(seen: &ObservedSecurityServer, place: &Place<'_>, now: Timestamp) -> ServerConfiguration {
    let server = &*seen.server;
    let signed_at = whole_seconds(now);
    let standing = seen.configuration.payload();
    let expires_at = document_expiry(signed_at, place.anchor.spec.autonomy.as_signed());
    if let Some(standing) = standing.filter(|_| is_paused(server)) {
        // Changes of the spec wait; signing again does not, nor does the departure of a guest.
        let mut frozen = ServerConfiguration { signed_at, expires_at, ..standing.clone() };
        frozen.clients.retain(|client| {
            let member = &client.id.member;
            holder_of(seen, place.anchor, &member.member_class, &member.member_code).is_some_and(is_guarded)
        });
        return frozen;
    }
    let profile = match server.spec.error_profile {
        DeclaredProfile::XRoad78 => ErrorProfile::XRoad78,
        DeclaredProfile::Document => ErrorProfile::Document,
    };
    let limits = &server.spec.limits;
    ServerConfiguration {
        format: FORMAT,
        server: place.server_id(seen),
        version: standing.map_or(0, |document| document.version),
        signed_at,
        expires_at,
        error_profile: profile,
        clients: clients(seen, place),
        limits: Limits {
            max_body_bytes: limits.max_body_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            spool_bytes: limits.spool_bytes().unwrap_or(FALLBACK_SPOOL_BYTES),
        },
    }
}

/// The guests that are members and are served here, since their own specs name this server, in the order of the spec. Whoever is
/// merely listed has agreed to nothing, and nothing is opened to his namespace.
pub(crate) fn confirmed_guests<'a>(
    seen: &'a ObservedSecurityServer,
    place: &'a Place<'_>,
) -> impl Iterator<Item = &'a Member> {
    seen.server
        .spec
        .guests
        .iter()
        .filter_map(|guest| holder_of(seen, place.anchor, &guest.member_class, &guest.member_code))
        .filter(|guest| guest.uid() != place.owner.uid() && is_guarded(guest))
        .filter(|guest| !served(seen, place, guest, guest_subsystems(&seen.server, guest)).is_empty())
}

fn clients(seen: &ObservedSecurityServer, place: &Place<'_>) -> Vec<ClientEntry> {
    let server: &SecurityServer = &seen.server;
    let owner = member_id(place.anchor, place.owner);
    let itself = ClientEntry {
        id: owner.client(),
        connection_type: ConnectionType::Http,
        services: Vec::new(),
        local_groups: Vec::new(),
    };
    let own = served(seen, place, place.owner, own_subsystems(server, place.owner));
    let theirs =
        confirmed_guests(seen, place).flat_map(|guest| served(seen, place, guest, guest_subsystems(server, guest)));
    let mut clients: Vec<_> = [itself].into_iter().chain(own).chain(theirs).collect();
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    clients.dedup_by(|a, b| a.id == b.id);
    clients
}

/// The clients of one member. Of a paused one they are those that stand: a right that its spec grants would else be
/// enforced within seconds, while the condition says that it waits.
fn served(
    seen: &ObservedSecurityServer,
    place: &Place<'_>,
    member: &Member,
    declared: Vec<&Subsystem>,
) -> Vec<ClientEntry> {
    let id = member_id(place.anchor, member);
    let declared = declared.into_iter();
    if !is_paused(member) {
        return declared.map(|subsystem| client(&id, subsystem)).collect();
    }
    if let Some(standing) = seen.configuration.payload() {
        let all = standing.clients.iter();
        return all.filter(|it| it.id.member == id && it.id.subsystem.is_some()).cloned().collect();
    }
    // A document that somebody has deleted must not take the services along: the spec is all that is left, and of it what
    // the authority has registered here.
    let entry = registered(seen, &place.server_id(seen));
    let known = |it: &&Subsystem| entry.is_some_and(|entry| entry.clients.contains(&served_client(member, it)));
    declared.filter(known).map(|subsystem| client(&id, subsystem)).collect()
}

fn client(member: &MemberId, subsystem: &Subsystem) -> ClientEntry {
    let mut services: Vec<_> = subsystem.services.iter().filter_map(|it| service(member, it)).collect();
    services.sort_by(|a, b| a.code.cmp(&b.code));
    let mut local_groups: Vec<_> = subsystem
        .local_groups
        .iter()
        .map(|group| GroupEntry { code: group.code.to_string(), members: client_ids(&member.instance, &group.members) })
        .collect();
    local_groups.sort_by(|a, b| a.code.cmp(&b.code));
    ClientEntry {
        id: member.subsystem(subsystem.code.as_str()),
        connection_type: match subsystem.connection_type {
            Declared::Http => ConnectionType::Http,
        },
        services,
        local_groups,
    }
}

/// A service, or nothing for a form that admission refuses.
fn service(member: &MemberId, declared: &Service) -> Option<ServiceEntry> {
    Some(ServiceEntry {
        code: declared.code.to_string(),
        description: match declared.choice()? {
            ServiceChoice::Rest(_) => ServiceDescription::Rest,
            ServiceChoice::OpenApi(_) => ServiceDescription::OpenApi3,
        },
        url: declared.url()?.to_owned(),
        timeout_seconds: declared.timeout_seconds,
        disabled: declared.disabled.as_ref().map(|disabled| disabled.notice.clone()),
        access: declared.access.iter().filter_map(|right| access(member, right)).collect(),
    })
}

/// A right, or nothing for a subject that admission refuses: what cannot be read grants nothing.
fn access(member: &MemberId, declared: &DeclaredRight) -> Option<AccessRight> {
    let subject = match declared.subject.choice()? {
        SubjectChoice::Client { member_class, member_code, subsystem } => Subject::Client(ClientId {
            member: MemberId {
                instance: member.instance.clone(),
                member_class: member_class.to_string(),
                member_code: member_code.to_string(),
            },
            subsystem: subsystem.map(ToString::to_string),
        }),
        SubjectChoice::GlobalGroup(code) => Subject::GlobalGroup(code.to_string()),
        SubjectChoice::LocalGroup(code) => Subject::LocalGroup(code.to_string()),
    };
    let endpoints = declared.allow.as_ref().map(|allowed| {
        let endpoint = |it: &saatkond_api::v1alpha1::member::Endpoint| Endpoint {
            method: it.method.as_str().to_owned(),
            path: it.path.clone(),
        };
        allowed.iter().map(endpoint).collect()
    });
    Some(AccessRight { subject, endpoints })
}
