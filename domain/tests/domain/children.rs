//! What is drift of an object that runs a gateway, and how it is taken out.

use saatkond_domain::children::{ChildKind, covers, overwriting};
use serde_json::{Value, json};

use crate::world::World;

#[test]
fn additions_are_drift_in_lists_and_selectors_and_nowhere_else() {
    let applied = json!({
        "metadata": {"labels": {"a": "1"}, "ownerReferences": [{"uid": "u"}]},
        "spec": {
            "replicas": 2, "list": ["a"], "ports": [{"name": "x", "port": 1}], "none": {}, "externalIPs": [],
            "requests": {"cpu": "0.5"}, "sizeLimit": "1024Mi",
            "selector": {"a": "1"}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"n": "1"}}}]}],
        },
    });
    let live = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}, "ownerReferences": [{"uid": "v"}, {"uid": "u", "controller": true}]},
        "spec": {
            "replicas": 2, "list": ["a"], "ports": [{"name": "x", "port": 1, "nodePort": 3}], "defaulted": true,
            "requests": {"cpu": "500m"}, "sizeLimit": "1Gi",
            "selector": {"a": "1"}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"n": "1"}}}]}],
        },
        "status": {},
    });
    assert!(covers(&live, &applied));
    let from = "/spec/ingress/0/from/0";
    for (name, path, value) in [
        ("a value", "/spec/replicas", json!(3)),
        ("no value", "/spec/replicas", json!(null)),
        ("a list of values", "/spec/list", json!(["a", "b"])),
        ("an entry", "/spec/ports/0/port", json!(9)),
        ("one entry more", "/spec/ports", json!([{"name": "x", "port": 1}, {"name": "y", "port": 2}])),
        ("two that are the same", "/spec/ports", json!([{"name": "x", "port": 1}, {"name": "x", "port": 1}])),
        ("a selector that finds nothing", "/spec/selector", json!({"a": "1", "b": "2"})),
        (
            "a rule that allows all",
            "/spec/ingress",
            json!([{"from": [{"namespaceSelector": {"matchLabels": {"n": "1"}}}]}, {}]),
        ),
        (
            "a peer with a further selector",
            from,
            json!({"namespaceSelector": {"matchLabels": {"n": "1"}}, "podSelector": {}}),
        ),
        ("a label", "/metadata/labels/a", json!("2")),
        ("a quantity", "/spec/requests/cpu", json!("501m")),
    ] {
        let mut changed = live.clone();
        *changed.pointer_mut(path).unwrap() = value;
        assert!(!covers(&changed, &applied), "{name}");
    }
    for (name, at, key, value) in [
        ("an address", "/spec", "externalIPs", json!(["192.0.2.1"])),
        ("a removed field", "/spec", "replicas", json!(null)),
        ("a removed list", "/spec", "ports", json!(null)),
    ] {
        let mut changed = live.clone();
        let fields = changed.pointer_mut(at).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(key);
        } else {
            fields.insert(key.into(), value);
        }
        assert!(!covers(&changed, &applied), "{name}");
    }
}

#[test]
fn additions_to_a_pod_are_drift_where_they_open_a_way_or_stop_it() {
    let world = World::steady();
    let seen = world.observe_server(0);
    let keys = &world.document().configuration_keys;
    let place = saatkond_domain::security_server::registration::place(&seen).unwrap();
    let children = saatkond_domain::security_server::build::children(&seen, &place, &[keys.current.key, keys.next.key]);
    let applied = |kind| children.iter().find(|child| child.kind() == kind).unwrap().value();
    let (deployment, service) = (applied(ChildKind::Deployment), applied(ChildKind::Service));
    let (pod, container) = ("/spec/template/spec", "/spec/template/spec/containers/0");
    let added = |object: &Value, at: &str, key: &str, value: Value| {
        let mut live = object.clone();
        live.pointer_mut(at).unwrap_or_else(|| panic!("no {at}")).as_object_mut().unwrap().insert(key.into(), value);
        live
    };
    for (applied, at, key, value) in [
        (&deployment, "/spec", "paused", json!(true)),
        (&deployment, pod, "hostNetwork", json!(true)),
        (&deployment, pod, "hostPID", json!(true)),
        (&deployment, pod, "shareProcessNamespace", json!(true)),
        (&deployment, pod, "initContainers", json!([{"name": "more", "image": "x"}])),
        (&deployment, pod, "hostAliases", json!([{"ip": "192.0.2.1", "hostnames": ["population-app"]}])),
        (&deployment, "/spec/template/spec/securityContext", "sysctls", json!([{"name": "a", "value": "1"}])),
        (&deployment, container, "command", json!(["sh"])),
        (&deployment, container, "lifecycle", json!({"postStart": {"exec": {"command": ["sh"]}}})),
        (&deployment, container, "envFrom", json!([{"secretRef": {"name": "other"}}])),
        (&deployment, "/spec/template/spec/containers/0/ports/0", "hostPort", json!(8080)),
        (&deployment, "/spec/template/spec/containers/0/securityContext", "privileged", json!(true)),
        (&deployment, "/spec/template/spec/containers/0/securityContext", "runAsUser", json!(0)),
        (&deployment, "/spec/template/spec/containers/0/securityContext/capabilities", "add", json!(["SYS_PTRACE"])),
        (&deployment, "/spec/template/spec/containers/0/readinessProbe/httpGet", "host", json!("192.0.2.1")),
        (&deployment, "/spec/template/spec/containers/0/volumeMounts/1", "subPath", json!("identity.json")),
        (&deployment, "/spec/template/spec/containers/0/readinessProbe", "initialDelaySeconds", json!(600)),
        (&service, "/spec", "publishNotReadyAddresses", json!(true)),
    ] {
        let live = added(applied, at, key, value);
        assert!(!covers(&live, applied), "{at}/{key} is drift");
        let mut repaired = live.clone();
        merge(&mut repaired, &overwriting(&live, applied));
        assert_eq!(&repaired, applied, "{at}/{key} is taken out");
    }
    for (applied, at, key, value) in [
        (&deployment, pod, "dnsPolicy", json!("Default")),
        (&deployment, "/spec/template/spec/containers/0/readinessProbe", "successThreshold", json!(30)),
        (&service, "/spec", "internalTrafficPolicy", json!("Local")),
        (&service, "/spec", "sessionAffinity", json!("ClientIP")),
    ] {
        assert!(!covers(&added(applied, at, key, value), applied), "{at}/{key} is drift");
    }
    // Defaults of the API server's, and what else is for the cluster's people to say.
    for (applied, at, key, value) in [
        (&deployment, "/spec", "progressDeadlineSeconds", json!(600)),
        (&deployment, pod, "restartPolicy", json!("Always")),
        (&deployment, pod, "schedulerName", json!("default-scheduler")),
        (&deployment, pod, "tolerations", json!([{"operator": "Exists"}])),
        (&deployment, pod, "aDefaultOfALaterVersion", json!(true)),
        (&deployment, container, "terminationMessagePath", json!("/dev/termination-log")),
        (&deployment, "/spec/template/spec/volumes/0/configMap", "defaultMode", json!(0o644)),
        (&deployment, "/spec/template/metadata", "annotations", json!({"kubectl.kubernetes.io/restartedAt": "now"})),
        (&service, "/spec", "clusterIP", json!("10.0.0.1")),
    ] {
        assert!(covers(&added(applied, at, key, value), applied), "{at}/{key} is none");
    }
}

/// A JSON merge patch as the API server carries it out.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return *object = patch.clone() };
    if !object.is_object() {
        *object = json!({});
    }
    let object = object.as_object_mut().unwrap();
    for (key, value) in fields {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[test]
fn overwriting_takes_out_what_applying_would_leave() {
    let applied = json!({
        "apiVersion": "v1", "metadata": {"name": "n"},
        "spec": {"type": "ClusterIP", "selector": {"a": "1"}, "ports": [{"port": 80}]},
    });
    let live = json!({
        "apiVersion": "v1", "metadata": {"name": "n", "labels": {"theirs": "1"}},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"a": "2", "b": "2"}, "ports": [{"port": 80}, {"port": 81}]},
    });
    let patch = json!({
        "apiVersion": "v1",
        "spec": {"type": "ClusterIP", "selector": {"a": "1", "b": null}, "ports": [{"port": 80}]},
    });
    assert_eq!(overwriting(&live, &applied), patch);
}
