//! The objects that run a server's gateways.
//!
//! Nothing in the pod template depends on a certificate or a document: those are mounted and taken up by running
//! processes, and a template that changed with them would restart every pod at every renewal.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Service, ServiceAccount, ServicePort,
    ServiceSpec, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use saatkond_api::SecurityServer;
use saatkond_api::names::link_server_name;
use saatkond_pki::configuration_key::ConfigurationPublicKey;

use super::configuration::confirmed_guests;
use super::observed::ObservedSecurityServer;
use super::registration::Place;
use crate::children::Child;
use crate::meta::{selector, server_labels, server_object};
use crate::names::{identity, service, start_copy};
use crate::settings::OperatorSettings;

/// Port for the member's own information systems.
pub const CLIENT_PORT: i32 = 8080;
/// Port for other security servers.
pub const SERVER_PORT: i32 = crate::serving::SERVER_PORT as i32;
/// Port of probes and metrics.
pub const ADMIN_PORT: i32 = 9090;
/// How long a pod may take to end: it fails its readiness first, then finishes what is under way.
pub const TERMINATION_GRACE_SECONDS: i64 = 60;
/// Nobody, in any image.
const USER: i64 = 65532;

const CONFIGURATION: &str = "configuration";
const IDENTITY: &str = "identity";
const STATE: &str = "state";
const SPOOL: &str = "spool";

/// The objects, in the order in which they are applied: who the pods are and who may reach them before the pods.
#[must_use]
pub fn children(seen: &ObservedSecurityServer, place: &Place<'_>, pins: &[ConfigurationPublicKey]) -> Vec<Child> {
    let server = &*seen.server;
    vec![
        Child::ServiceAccount(Box::new(service_account(server))).sealed(),
        Child::NetworkPolicy(Box::new(network_policy(seen, place))).sealed(),
        Child::Service(Box::new(service_object(server))).sealed(),
        Child::PodDisruptionBudget(Box::new(disruption_budget(server))).sealed(),
        Child::Deployment(Box::new(deployment(server, &seen.settings, &place.anchor.name_any(), pins))).sealed(),
    ]
}

/// Name of the ServiceAccount, NetworkPolicy, PodDisruptionBudget and Deployment.
fn name(server: &SecurityServer) -> String {
    service(&server.name_any())
}

fn service_account(server: &SecurityServer) -> ServiceAccount {
    ServiceAccount {
        metadata: server_object(server, name(server), None),
        // Gateways never speak to the API server: a token would only be something to steal.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn service_object(server: &SecurityServer) -> Service {
    let port = |name: &str, port: i32, target: &str| ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(target.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: server_object(server, name(server), None),
        spec: Some(ServiceSpec {
            // Said although it is the default, as is that there are no further addresses: whoever changes either lets
            // in whom the client port's plain HTTP would believe.
            type_: Some("ClusterIP".to_owned()),
            external_ips: Some(Vec::new()),
            // Defaults, said for the same reason: who changes one keeps clients from the pods, or all of them at one.
            internal_traffic_policy: Some("Cluster".to_owned()),
            session_affinity: Some("None".to_owned()),
            selector: Some(selector(server)),
            ports: Some(vec![port("client", 80, "client"), port("server", SERVER_PORT, "server")]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// One pod may be away at a time. With a single replica the budget allows its eviction: a drain that waits for ever
/// helps nobody, and two replicas are the default.
fn disruption_budget(server: &SecurityServer) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: server_object(server, name(server), None),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(selector(server))),
            // A pod that is not ready anyway must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn label_selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// Who may reach the pods. With plain HTTP whoever reaches the client port may call in a client's name, so it is open
/// to the namespaces of the members served and those that the spec adds, and to nobody else. The server port is open:
/// peers stand anywhere and mutual TLS decides. The admin port is open to the operator's namespace and the pods' own
/// (metrics); probes come from the node, which policies do not stop. What pods may reach is not limited: information
/// systems, peers and the link may stand anywhere.
fn network_policy(seen: &ObservedSecurityServer, place: &Place<'_>) -> NetworkPolicy {
    let server = &*seen.server;
    let port = |number: i32| NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    let own = server.namespace().unwrap_or_default();
    let access = server.spec.client_access.iter().flat_map(|access| access.namespaces.iter().cloned());
    let mut clients: Vec<String> =
        confirmed_guests(seen, place).filter_map(ResourceExt::namespace).chain(access).chain([own.clone()]).collect();
    clients.sort();
    clients.dedup();
    let mut observers = vec![seen.settings.namespace.clone(), own];
    observers.sort();
    observers.dedup();
    let rule = |from: Option<Vec<NetworkPolicyPeer>>, number| NetworkPolicyIngressRule {
        from,
        ports: Some(vec![port(number)]),
    };
    NetworkPolicy {
        metadata: server_object(server, name(server), None),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(selector(server))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                rule(Some(clients.iter().map(|name| peer(name)).collect()), CLIENT_PORT),
                rule(None, SERVER_PORT),
                rule(Some(observers.iter().map(|name| peer(name)).collect()), ADMIN_PORT),
            ]),
            egress: Some(vec![NetworkPolicyEgressRule::default()]),
        }),
    }
}

/// Every pod of a namespace. The label is the API server's own and cannot be forged.
fn peer(namespace: &str) -> NetworkPolicyPeer {
    let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())]);
    NetworkPolicyPeer { namespace_selector: Some(label_selector(labels)), ..NetworkPolicyPeer::default() }
}

fn deployment(
    server: &SecurityServer,
    settings: &OperatorSettings,
    anchor: &str,
    pins: &[ConfigurationPublicKey],
) -> Deployment {
    Deployment {
        metadata: server_object(server, name(server), None),
        spec: Some(DeploymentSpec {
            replicas: Some(server.spec.replicas),
            selector: label_selector(selector(server)),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    // Never fewer than declared: a new process serves before an old one goes.
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(server_labels(server, None)), ..ObjectMeta::default() }),
                spec: Some(pod(server, settings, anchor, pins)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(server: &SecurityServer, settings: &OperatorSettings, anchor: &str, pins: &[ConfigurationPublicKey]) -> PodSpec {
    let spread = |topology: &str| TopologySpreadConstraint {
        label_selector: Some(label_selector(selector(server))),
        max_skew: 1,
        topology_key: topology.to_owned(),
        // A preference: a cluster of one node, or with one zone down, still runs all replicas.
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    };
    let pull_secrets: Vec<_> =
        settings.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodSpec {
        service_account_name: Some(name(server)),
        automount_service_account_token: Some(false),
        // The default, said because names of peers and of the link would else be looked up elsewhere.
        dns_policy: Some("ClusterFirst".to_owned()),
        // No environment variables for every Service of the namespace: names of others are nobody's business.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![
            spread("topology.kubernetes.io/zone"),
            spread("kubernetes.io/hostname"),
        ]),
        containers: vec![container(server, settings, anchor, pins)],
        volumes: Some(volumes(server)),
        ..PodSpec::default()
    }
}

fn container(
    server: &SecurityServer,
    settings: &OperatorSettings,
    anchor: &str,
    pins: &[ConfigurationPublicKey],
) -> Container {
    let env = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let pod_uid = EnvVar {
        name: "SAATKOND_POD_UID".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "metadata.uid".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    };
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
    Container {
        name: "gateway".to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        args: Some(vec!["gateway".to_owned()]),
        env: Some(vec![
            pod_uid,
            env("SAATKOND_LINK_URL", settings.link_url.clone()),
            env("SAATKOND_LINK_SERVER_NAME", link_server_name(anchor)),
            env("SAATKOND_ANCHOR_KEY", pins.join(",")),
            env("RUST_LOG", settings.gateway_log.clone()),
        ]),
        ports: Some(vec![port("client", CLIENT_PORT), port("server", SERVER_PORT), port("admin", ADMIN_PORT)]),
        resources: Some(resources(server)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        // A process that cannot start (no peer answers, documents too old) lives and says why: restarting it would
        // lose what it has saved in memory. Only a process that no longer answers at all is restarted.
        liveness_probe: Some(Probe { failure_threshold: Some(6), ..probe("/livez", 10) }),
        readiness_probe: Some(Probe { failure_threshold: Some(2), ..probe("/readyz", 5) }),
        volume_mounts: Some(vec![
            // Directories: a `subPath` mount never sees an update.
            mount(CONFIGURATION, "/etc/saatkond/configuration", true),
            mount(IDENTITY, "/etc/saatkond/identity", true),
            mount(STATE, "/var/lib/saatkond", false),
            mount(SPOOL, "/var/spool/saatkond", false),
        ]),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

fn resources(server: &SecurityServer) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    match &server.spec.resources {
        Some(declared) => ResourceRequirements {
            requests: Some(declared.requests.clone()),
            limits: Some(declared.limits.clone()),
            claims: None,
        },
        None => ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_owned(), quantity("50m")),
                ("memory".to_owned(), quantity("64Mi")),
            ])),
            // No limit on CPU: throttling shows as latency that nobody can explain.
            limits: Some(BTreeMap::from([("memory".to_owned(), quantity("256Mi"))])),
            claims: None,
        },
    }
}

fn volumes(server: &SecurityServer) -> Vec<Volume> {
    let volume = |name: &str| Volume { name: name.to_owned(), ..Volume::default() };
    let server_name = server.name_any();
    vec![
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: start_copy(&server_name),
                ..ConfigMapVolumeSource::default()
            }),
            ..volume(CONFIGURATION)
        },
        Volume {
            secret: Some(SecretVolumeSource {
                secret_name: Some(identity(&server_name)),
                // Readable to the group that the pod runs in, and to nobody else.
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..volume(IDENTITY)
        },
        Volume {
            // In memory: documents and keys saved here survive a restart of the container, never the pod or the node.
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("64Mi".to_owned())),
            }),
            ..volume(STATE)
        },
        Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                medium: None,
                size_limit: Some(server.spec.limits.spool_size.clone()),
            }),
            ..volume(SPOOL)
        },
    ]
}
