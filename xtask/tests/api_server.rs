//! The definitions on a real API server: it takes them, and it judges every case as the local judge does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::io::Write as _;
use std::process::Stdio;

use saatkond_api::cases::{FILES, load};
use saatkond_api::crds;
use saatkond_testbed::{ApiServer, ApiServerOptions};
use serde_json::{Value, json};

/// An API server of our own (cases use names that other tests use too) with the definitions established.
fn server() -> ApiServer {
    let server = ApiServer::start(&ApiServerOptions::default()).expect("an API server starts");
    let definitions = crds::to_yaml(&crds::all().unwrap()).unwrap();
    kubectl(&server, &["apply", "--server-side", "-f", "-"], &definitions)
        .expect("the API server takes the definitions");
    for kind in ["trustanchors", "members", "securityservers"] {
        let name = format!("crd/{kind}.saatkond.io");
        kubectl(&server, &["wait", "--for=condition=Established", "--timeout=60s", &name], "").unwrap();
    }
    server
}

/// Standard output, or standard error if it fails.
fn kubectl(server: &ApiServer, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = server
        .cluster()
        .kubectl_command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).expect("kubectl reads its input");
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Where an object of ours is in the API, or the list that it is created in.
fn path_of(object: &Value, itself: bool) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let plural = format!("{}s", text("/kind").to_lowercase());
    let name = if itself { format!("/{}", text("/metadata/name")) } else { String::new() };
    match text("/metadata/namespace") {
        "" => format!("/apis/saatkond.io/v1alpha1/{plural}{name}"),
        namespace => format!("/apis/saatkond.io/v1alpha1/namespaces/{namespace}/{plural}{name}"),
    }
}

#[test]
fn the_api_server_judges_every_case_as_the_local_judge_does() {
    let server = server();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (kind, text) in FILES {
        let file = load(text);
        let version = ["create", "--validate=strict", "-o", "jsonpath={.metadata.resourceVersion}", "-f", "-"];
        let version = kubectl(&server, &version, &file.base.to_string())
            .unwrap_or_else(|error| panic!("the base of {kind} is refused: {error}"));
        for case in &file.cases {
            let mut object = case.object(&file.base);
            if case.update {
                object["metadata"]["resourceVersion"] = json!(version);
            } else if object["metadata"]["name"] == file.base["metadata"]["name"] {
                object["metadata"]["name"] = json!("another");
            }
            let (verb, path) =
                if case.update { ("replace", path_of(&object, true)) } else { ("create", path_of(&object, false)) };
            // Raw requests spare the discovery that kubectl does first otherwise.
            let path = format!("{path}?dryRun=All&fieldValidation=Strict");
            let answer = kubectl(&server, &[verb, "--raw", &path, "-f", "-"], &object.to_string());
            count += 1;
            match (&case.refused, &answer) {
                (Some(expected), Err(message)) if message.contains(expected) => {}
                (None, Ok(_)) => {}
                _ => wrong.push(format!("{kind}: {}: {answer:?}", case.name)),
            }
        }
    }
    println!("{count} cases judged by the API server");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn receipts_columns_scale_and_category_work() {
    let server = server();
    let base = load(FILES[2].1).base;
    kubectl(&server, &["create", "-f", "-"], &base.to_string()).unwrap();

    // Each process's receipt has a field manager of its own: none erases another's.
    let receipt = |pod: &str, version: u32| {
        let mut object = base.clone();
        object.as_object_mut().unwrap().remove("spec");
        object["status"] = json!({"processes": [{
            "podUid": pod, "incarnation": 1, "instanceVersion": version, "serverVersion": 1, "bundleSequence": 1,
            "bundleHash": "sha256:00", "leafIssueNumber": 1, "leafSerial": "0a", "highestFormat": 1,
        }]});
        let manager = format!("--field-manager={}", saatkond_api::names::manager::link(pod));
        let arguments = ["apply", "--server-side", "--force-conflicts", "--subresource=status", &manager, "-f", "-"];
        kubectl(&server, &arguments, &object.to_string()).expect("a receipt is taken");
    };
    let (one, two) = ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002");
    receipt(one, 1);
    receipt(two, 1);
    receipt(one, 2);
    let read: Value =
        serde_json::from_str(&kubectl(&server, &["get", "ss", "ss1", "-o", "json"], "").unwrap()).unwrap();
    let processes = read["status"]["processes"].as_array().unwrap();
    let version = |pod: &str| processes.iter().find(|p| p["podUid"] == pod).map(|p| p["instanceVersion"].clone());
    assert_eq!((version(one), version(two), processes.len()), (Some(json!(2)), Some(json!(1)), 2));

    kubectl(&server, &["scale", "ss/ss1", "--replicas=3"], "").expect("a server can be scaled");
    let replicas = kubectl(&server, &["get", "ss/ss1", "-o", "jsonpath={.spec.replicas}"], "").unwrap();
    assert_eq!(replicas, "3");

    let listed = kubectl(&server, &["get", "saatkond", "-A"], "").unwrap();
    assert!(listed.contains("securityserver.saatkond.io/ss1") && listed.contains("READY"), "{listed}");
    let told = kubectl(&server, &["explain", "securityserver.spec.limits.spoolSize"], "").unwrap();
    assert!(told.contains("Default: `1Gi`"), "{told}");
    let selected =
        kubectl(&server, &["get", "ss", "-A", "--field-selector=spec.memberRef.name=nobody", "-o", "name"], "");
    assert_eq!(selected.unwrap().trim(), "");
}
