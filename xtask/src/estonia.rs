//! A federation of Estonia's size: 472 members, 258 servers, 1,232 subsystems, 3,000 services, always the same.
//!
//! The sizes of members are skewed as they are in life: a few large ones with dozens of subsystems, many with one. 258
//! members own a server; the other 214 are guests on one of those. Each member has a namespace with the authority's
//! annotation and RoleBinding, as `kubectl saatkond admit` would write them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saatkond_api::admission::{self, MemberIdentity};
use saatkond_api::duration::Period;
use saatkond_api::refs::{ClientIdRef, ConfigMapEntryRef, MemberIdRef, MemberRef, SecurityServerRef, TrustAnchorRef};
use saatkond_api::v1alpha1::member::{
    AccessRight, AccessSubject, ConnectionType, Endpoint, Method, OpenApiService, RestService, Service, Subsystem,
};
use saatkond_api::v1alpha1::trust_anchor::{GlobalGroup, LeafPolicy, ManagedSource, TrustSource};
use saatkond_api::v1alpha1::{MemberSpec, SecurityServerSpec, TrustAnchorSpec};
use saatkond_api::{Member, SecurityServer, TrustAnchor, crds, names};
use serde::Serialize;
use serde_json::Value;

/// Members in all.
pub const MEMBERS: usize = 472;
/// Security servers, each owned by another member.
pub const SERVERS: usize = 258;
/// Subsystems of all members.
pub const SUBSYSTEMS: usize = 1232;
/// Services of all subsystems.
pub const SERVICES: usize = 3000;

const INSTANCE: &str = "EE";
const ANCHOR: &str = "ee";
const OPERATOR_NAMESPACE: &str = "saatkond-system";
/// What one subsystem and one member may hold at most; below what the API admits.
const MOST_SERVICES: usize = 60;
const MOST_SUBSYSTEMS: usize = 40;

/// The objects of a federation, ready to be applied in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Federation {
    /// The one trust anchor.
    pub anchor: TrustAnchor,
    /// A namespace for each member, with the annotation that admits it and whoever lives beside it.
    pub namespaces: Vec<Namespace>,
    /// A RoleBinding for each namespace.
    pub role_bindings: Vec<RoleBinding>,
    /// OpenAPI documents, one for each member that describes a service.
    pub descriptions: Vec<ConfigMap>,
    /// The members.
    pub members: Vec<Member>,
    /// The security servers.
    pub servers: Vec<SecurityServer>,
}

/// The federation; the same at each call.
pub fn federation() -> Result<Federation> {
    let owners = identities()?;
    let subsystems = spread(SUBSYSTEMS, MEMBERS, MOST_SUBSYSTEMS, 1);
    let services = spread(SERVICES, SUBSYSTEMS, MOST_SERVICES, 0);

    let mut all = Federation {
        anchor: anchor(&owners)?,
        namespaces: Vec::with_capacity(MEMBERS),
        role_bindings: Vec::with_capacity(MEMBERS),
        descriptions: Vec::new(),
        members: Vec::with_capacity(MEMBERS),
        servers: Vec::with_capacity(SERVERS),
    };
    let mut guests: BTreeMap<usize, Vec<MemberIdRef>> = BTreeMap::new();
    let mut first = 0;
    for (at, owner) in owners.iter().enumerate() {
        let host = host_of(at);
        if let Some(host) = host {
            guests.entry(host).or_default().push(owner.id.clone());
        }
        let member = member(at, owner, &owners, first, subsystems[at], &services, host)?;
        first += subsystems[at];
        if is_described(&member) {
            all.descriptions.push(description(&owner.namespace));
        }
        all.namespaces.push(namespace(&owner.namespace, &[&owner.id])?);
        all.role_bindings.push(role_binding(&owner.namespace));
        all.members.push(member);
    }
    for (at, owner) in owners.iter().enumerate().take(SERVERS) {
        all.servers.push(server(owner, guests.remove(&at).unwrap_or_default())?);
    }
    Ok(all)
}

/// The federation with further members, until it counts so many objects of ours. Each of them lives beside another member, both
/// admitted in one namespace, and is a guest on the next one's server, so that all that is asked of the operator for a member is
/// asked for these too. They are of the size that most have.
pub fn enlarged(objects: usize) -> Result<Federation> {
    let mut all = federation()?;
    let count = objects.checked_sub(all.size()).context("the federation counts more objects by itself")?;
    ensure!(count <= MEMBERS, "there are namespaces for {MEMBERS} further members, not for {count}");
    let mut by_size: Vec<_> = all.members.iter().collect();
    by_size.sort_by_key(|member| weight(member));
    let template = by_size[MEMBERS / 2].clone();
    for (at, neighbour) in identities()?.iter().enumerate().take(count) {
        // Nobody else's code begins with a 9.
        let id =
            MemberIdRef { member_class: template.spec.member_class.clone(), member_code: format!("9{at:07}").parse()? };
        // Never the neighbour's own: guests live elsewhere, like the others'.
        let host = &mut all.servers[(at + 1) % SERVERS];
        host.spec.guests.push(id.clone());
        let servers = vec![SecurityServerRef { namespace: host.metadata.namespace.clone(), name: "ss1".to_owned() }];
        let mut member = template.clone();
        member.metadata.namespace = Some(neighbour.namespace.clone());
        member.metadata.name = Some(format!("further-{at:03}"));
        member.spec.member_code = id.member_code.clone();
        member.spec.display_name = Some(format!("Further member {at}"));
        for subsystem in &mut member.spec.subsystems {
            subsystem.servers = Some(servers.clone());
        }
        let has_description = all.descriptions.iter().any(|it| it.metadata.namespace == member.metadata.namespace);
        if is_described(&member) && !has_description {
            all.descriptions.push(description(&neighbour.namespace));
        }
        all.namespaces[at] = namespace(&neighbour.namespace, &[&neighbour.id, &id])?;
        all.members.push(member);
    }
    Ok(all)
}

/// How large a member is. Members with few subsystems have few services mostly, not always: both count.
fn weight(member: &Member) -> (usize, usize) {
    let subsystems = &member.spec.subsystems;
    (subsystems.iter().map(|subsystem| subsystem.services.len()).sum(), subsystems.len())
}

/// Whether a service of the member has an OpenAPI document.
fn is_described(member: &Member) -> bool {
    member.spec.subsystems.iter().flat_map(|s| &s.services).any(|service| service.openapi.is_some())
}

/// A member before it has subsystems.
struct Owner {
    id: MemberIdRef,
    namespace: String,
    name: String,
}

fn identities() -> Result<Vec<Owner>> {
    // Two of five are public bodies, as in the register of 2024; the rest are companies and associations.
    const CLASSES: [(&str, usize); 5] =
        [("GOV", 10_000_000), ("GOV", 10_000_000), ("COM", 20_000_000), ("COM", 20_000_000), ("NGO", 30_000_000)];
    (0..MEMBERS)
        .map(|at| {
            let (class, base) = CLASSES[at % CLASSES.len()];
            Ok(Owner {
                id: MemberIdRef { member_class: class.parse()?, member_code: format!("{}", base + at * 37).parse()? },
                namespace: format!("member-{at:03}"),
                name: format!("member-{at:03}"),
            })
        })
        .collect()
}

/// The member whose server a member without one is a guest of.
fn host_of(at: usize) -> Option<usize> {
    // 7 and 258 have no common divisor, so guests are spread over many hosts; some hosts have several.
    (at >= SERVERS).then(|| (at * at * 7 + at) % SERVERS)
}

/// Shares `total` among `places` by Zipf's law, each at least `least` and at most `most`: the nth gets a share of 1/n.
fn spread(total: usize, places: usize, most: usize, least: usize) -> Vec<usize> {
    const UNIT: usize = 1_000_000;
    let rest = total - least * places;
    let weights: usize = (1..=places).map(|nth| UNIT / nth).sum();
    let mut shares: Vec<_> = (1..=places).map(|nth| (least + rest * (UNIT / nth) / weights).min(most)).collect();
    // What rounding and the bound have left over, one each from the front, as often as it takes.
    let mut left = total - shares.iter().sum::<usize>();
    while left > 0 {
        for share in shares.iter_mut().filter(|share| **share < most) {
            if left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

fn anchor(owners: &[Owner]) -> Result<TrustAnchor> {
    let members = owners
        .iter()
        .filter(|owner| &*owner.id.member_class == "COM")
        .map(|owner| {
            Ok(ClientIdRef {
                member_class: owner.id.member_class.clone(),
                member_code: owner.id.member_code.clone(),
                subsystem: Some(subsystem_code(0).parse()?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let spec = TrustAnchorSpec {
        instance: INSTANCE.parse()?,
        source: TrustSource { managed: Some(ManagedSource::default()), external: None },
        leaf_policy: LeafPolicy::default(),
        rotation: None,
        emergency: None,
        autonomy: Period::hours(72),
        admission: saatkond_api::v1alpha1::trust_anchor::AdmissionMode::Annotated,
        global_groups: vec![GlobalGroup {
            code: "companies".parse()?,
            description: Some("First subsystem of every company".to_owned()),
            members,
        }],
    };
    Ok(TrustAnchor::new(ANCHOR, spec))
}

fn subsystem_code(at: usize) -> String {
    format!("system-{at:02}")
}

fn member(
    at: usize,
    owner: &Owner,
    owners: &[Owner],
    first: usize,
    count: usize,
    services: &[usize],
    host: Option<usize>,
) -> Result<Member> {
    let servers = host.map(|host| {
        vec![SecurityServerRef { namespace: Some(owners[host].namespace.clone()), name: "ss1".to_owned() }]
    });
    let subsystems = (0..count)
        .map(|nth| {
            // The large shares must not all meet in the large members: walk through the list with a stride that has no
            // common divisor with its length, so that each share is used once.
            let share = services[(first + nth) * 515 % SUBSYSTEMS];
            Ok(Subsystem {
                code: subsystem_code(nth).parse()?,
                display_name: None,
                connection_type: ConnectionType::Http,
                servers: servers.clone(),
                local_groups: Vec::new(),
                services: (0..share)
                    .map(|service| self::service(at, nth, service, owners))
                    .collect::<Result<Vec<_>>>()?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let spec = MemberSpec {
        trust_anchor_ref: TrustAnchorRef { name: ANCHOR.to_owned() },
        member_class: owner.id.member_class.clone(),
        member_code: owner.id.member_code.clone(),
        display_name: Some(format!("Member {at}")),
        subsystems,
    };
    let mut member = Member::new(&owner.name, spec);
    member.metadata.namespace = Some(owner.namespace.clone());
    Ok(member)
}

fn service(member: usize, subsystem: usize, nth: usize, owners: &[Owner]) -> Result<Service> {
    let url = format!("http://app-{subsystem:02}:8080/v1/{nth:02}");
    // One service in five is described; every described one of a member shares its ConfigMap.
    let described = nth.is_multiple_of(5);
    let grants = 1 + (member + subsystem + nth) % 3;
    let mut access = (0..grants)
        .map(|grant| {
            let caller = &owners[(member * 31 + subsystem * 17 + nth * 7 + grant * 101 + 1) % MEMBERS].id;
            Ok(AccessRight {
                subject: AccessSubject {
                    member_class: Some(caller.member_class.clone()),
                    member_code: Some(caller.member_code.clone()),
                    subsystem: Some(subsystem_code(0).parse()?),
                    global_group: None,
                    local_group: None,
                },
                allow: (grant == 0).then(|| vec![Endpoint { method: Method::Get, path: "/**".to_owned() }]),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if nth % 10 == 3 {
        access.push(AccessRight {
            subject: AccessSubject {
                member_class: None,
                member_code: None,
                subsystem: None,
                global_group: Some("companies".parse()?),
                local_group: None,
            },
            allow: None,
        });
    }
    Ok(Service {
        code: format!("service-{nth:02}").parse()?,
        rest: (!described).then(|| RestService { url: url.clone() }),
        openapi: described.then(|| OpenApiService {
            config_map_ref: ConfigMapEntryRef { name: "descriptions".to_owned(), key: "openapi.yaml".to_owned() },
            url,
        }),
        timeout_seconds: saatkond_api::v1alpha1::member::DEFAULT_TIMEOUT_SECONDS,
        disabled: None,
        access,
    })
}

fn server(owner: &Owner, guests: Vec<MemberIdRef>) -> Result<SecurityServer> {
    let spec = SecurityServerSpec {
        member_ref: MemberRef { name: owner.name.clone() },
        server_code: "ss1".parse()?,
        replicas: 1,
        address: None,
        guests,
        client_access: None,
        error_profile: saatkond_api::v1alpha1::security_server::ErrorProfile::default(),
        limits: saatkond_api::v1alpha1::security_server::Limits::default(),
        resources: None,
        revocation: None,
    };
    let mut server = SecurityServer::new("ss1", spec);
    server.metadata.namespace = Some(owner.namespace.clone());
    Ok(server)
}

/// A namespace in which these members are admitted.
fn namespace(name: &str, members: &[&MemberIdRef]) -> Result<Namespace> {
    let identities = members
        .iter()
        .map(|id| {
            Ok(MemberIdentity {
                instance: INSTANCE.parse()?,
                member_class: id.member_class.clone(),
                member_code: id.member_code.clone(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let annotation = (names::annotation::MEMBER_IDENTITIES.to_owned(), admission::format(&identities));
    Ok(Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some(BTreeMap::from([annotation])),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    })
}

fn role_binding(namespace: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(names::MEMBER_NAMESPACE_BINDING.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: names::MEMBER_NAMESPACE_ROLE.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: names::CONTROLLER_SERVICE_ACCOUNT.to_owned(),
            namespace: Some(OPERATOR_NAMESPACE.to_owned()),
            ..Subject::default()
        }]),
    }
}

fn description(namespace: &str) -> ConfigMap {
    let document = "openapi: 3.0.3\n\
                    info: {title: Records, version: 1.0.0}\n\
                    paths:\n  \
                      /{id}:\n    \
                        get:\n      \
                          parameters: [{name: id, in: path, required: true, schema: {type: string}}]\n      \
                          responses: {\"200\": {description: The record}}\n";
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("descriptions".to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("openapi.yaml".to_owned(), document.to_owned())])),
        ..ConfigMap::default()
    }
}

impl Federation {
    /// How many objects of ours it counts: the anchor, the members and the servers.
    pub fn size(&self) -> usize {
        1 + self.members.len() + self.servers.len()
    }

    /// Every object as JSON, in the order in which they are applied.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let mut all = vec![json(&self.anchor)];
        all.extend(self.namespaces.iter().map(json));
        all.extend(self.role_bindings.iter().map(json));
        all.extend(self.descriptions.iter().map(json));
        all.extend(self.members.iter().map(json));
        all.extend(self.servers.iter().map(json));
        all.into_iter().collect()
    }

    /// Writes the trust anchor and one file for each namespace to `folder`; says how many files.
    pub fn write(&self, folder: &Path) -> Result<usize> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for object in self.objects()? {
            let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            let namespace =
                at("/metadata/namespace").or_else(|| (at("/kind")? == "Namespace").then(|| at("/metadata/name"))?);
            // The anchor first: `kubectl apply -f FOLDER` goes by name.
            files.entry(namespace.unwrap_or_else(|| "00-trust-anchor".to_owned())).or_default().push(object);
        }
        for (name, objects) in &files {
            let path = folder.join(format!("{name}.yaml"));
            fs::write(&path, crds::to_yaml(objects)?).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(files.len())
    }
}

fn json<T: Serialize>(object: &T) -> Result<Value> {
    serde_json::to_value(object).context("an object is not JSON")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::examples;

    #[test]
    fn shares_add_up_within_their_bounds() {
        for (total, places, most, least) in
            [(SUBSYSTEMS, MEMBERS, MOST_SUBSYSTEMS, 1), (SERVICES, SUBSYSTEMS, MOST_SERVICES, 0), (7, 3, 4, 1)]
        {
            let shares = spread(total, places, most, least);
            assert_eq!((shares.iter().sum::<usize>(), shares.len()), (total, places));
            assert!(shares.iter().all(|&share| (least..=most).contains(&share)), "{shares:?}");
        }
    }

    #[test]
    fn it_is_of_estonia_s_size() {
        let all = federation().unwrap();
        let subsystems: Vec<_> = all.members.iter().flat_map(|member| &member.spec.subsystems).collect();
        let services = subsystems.iter().map(|subsystem| subsystem.services.len()).sum::<usize>();
        assert_eq!((all.members.len(), all.servers.len()), (472, 258));
        assert_eq!((subsystems.len(), services), (1232, 3000));
        assert_eq!((all.namespaces.len(), all.role_bindings.len()), (472, 472));
        let owners: BTreeSet<_> = all.servers.iter().map(|server| &server.spec.member_ref.name).collect();
        let guests = all.members.iter().filter(|member| !owners.contains(member.metadata.name.as_ref().unwrap()));
        assert!(guests.count() >= 214);
        let identities: BTreeSet<_> =
            all.members.iter().map(|member| (&member.spec.member_class, &member.spec.member_code)).collect();
        assert_eq!(identities.len(), 472);
    }

    #[test]
    fn further_members_are_of_median_size() {
        let (all, more) = (federation().unwrap(), enlarged(1000).unwrap());
        let further = weight(more.members.last().unwrap());
        let smaller = all.members.iter().filter(|member| weight(member) < further).count();
        let larger = all.members.iter().filter(|member| weight(member) > further).count();
        assert!(smaller <= MEMBERS / 2 && larger <= MEMBERS / 2, "{further:?}: {smaller} are smaller, {larger} larger");
    }

    #[test]
    fn both_sides_say_who_is_a_guest_where() {
        for (all, count) in [(federation().unwrap(), 214), (enlarged(1000).unwrap(), 214 + 269)] {
            let from_members: BTreeSet<_> = all
                .members
                .iter()
                .flat_map(|member| {
                    let id = (member.spec.member_class.clone(), member.spec.member_code.clone());
                    let hosts = member.spec.subsystems.iter().flat_map(|subsystem| subsystem.servers.iter().flatten());
                    hosts.map(move |host| (host.namespace.clone(), id.clone())).collect::<Vec<_>>()
                })
                .collect();
            let from_servers: BTreeSet<_> = all
                .servers
                .iter()
                .flat_map(|server| {
                    let guests = server.spec.guests.iter();
                    guests.map(|guest| {
                        (server.metadata.namespace.clone(), (guest.member_class.clone(), guest.member_code.clone()))
                    })
                })
                .collect();
            assert_eq!(from_members, from_servers);
            assert_eq!(from_members.len(), count);
        }
    }

    #[test]
    fn further_members_are_admitted_and_described_where_they_live() {
        let all = enlarged(1000).unwrap();
        assert_eq!((all.size(), all.members.len(), all.servers.len()), (1000, 472 + 269, 258));
        let admitted: BTreeMap<_, _> = all
            .namespaces
            .iter()
            .map(|namespace| {
                let annotations = namespace.metadata.annotations.as_ref().unwrap();
                let identities = admission::parse(&annotations[names::annotation::MEMBER_IDENTITIES]).0;
                (namespace.metadata.name.as_ref(), identities)
            })
            .collect();
        let described: BTreeSet<_> = all.descriptions.iter().map(|map| map.metadata.namespace.as_ref()).collect();
        assert_eq!((admitted.len(), described.len()), (472, all.descriptions.len()));
        let mut seen = BTreeSet::new();
        for member in &all.members {
            let namespace = member.metadata.namespace.as_ref();
            let identity = MemberIdentity {
                instance: INSTANCE.parse().unwrap(),
                member_class: member.spec.member_class.clone(),
                member_code: member.spec.member_code.clone(),
            };
            assert!(admitted[&namespace].contains(&identity), "{identity} in {namespace:?}");
            assert!(!is_described(member) || described.contains(&namespace), "{identity} in {namespace:?}");
            assert!(seen.insert(identity), "two are one");
        }
        let wrong = examples::Judges::new().unwrap().judge(&all.objects().unwrap());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(enlarged(730).is_err() && enlarged(731 + 473).is_err());
        assert_eq!(enlarged(731).unwrap(), federation().unwrap());
    }

    #[test]
    fn every_right_names_a_subsystem_that_exists() {
        let all = federation().unwrap();
        let exists: BTreeSet<_> = all
            .members
            .iter()
            .flat_map(|member| {
                let spec = &member.spec;
                spec.subsystems.iter().map(|s| (spec.member_class.clone(), spec.member_code.clone(), s.code.clone()))
            })
            .collect();
        let services = all.members.iter().flat_map(|member| &member.spec.subsystems).flat_map(|s| &s.services);
        for right in services.flat_map(|service| &service.access) {
            let subject = right.subject.clone();
            if let (Some(class), Some(code), Some(subsystem)) =
                (subject.member_class, subject.member_code, subject.subsystem)
            {
                assert!(exists.contains(&(class, code, subsystem)));
            }
        }
    }

    #[test]
    fn every_object_is_admitted_and_the_same_each_time() {
        let all = federation().unwrap();
        let objects = all.objects().unwrap();
        let wrong = examples::Judges::new().unwrap().judge(&objects);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(federation().unwrap(), all);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let all = federation().unwrap();
        assert_eq!(all.write(folder.path()).unwrap(), 473);
        let files = examples::files(folder.path()).unwrap();
        assert!(files[0].ends_with("00-trust-anchor.yaml"));
        let mut read = 0;
        for path in files {
            read += examples::objects(&fs::read_to_string(path).unwrap()).unwrap().len();
        }
        assert_eq!(read, all.objects().unwrap().len());
    }
}
