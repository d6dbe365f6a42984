//! The API-server tier: starts, is shared, and leaves nothing behind.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use saatkond_testbed::{ApiServer, ApiServerOptions, Layout, ProcessId, wait};

const BOUND: Duration = Duration::from_mins(1);

/// A user of the shared server in a process of its own.
struct User(Child);

impl User {
    /// Starts one and waits until it has its server; gives the path of its kubeconfig.
    fn start(flag: &str) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_testbed"))
            .args(["api", "run", "--flag", flag])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the testbed program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is a pipe")).read_line(&mut line).expect("it says a line");
        let path = line.trim().trim_start_matches("export KUBECONFIG=").to_owned();
        assert!(Path::new(&path).exists(), "no kubeconfig in {line:?}");
        (Self(child), path)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.kill().expect("a user can be killed");
        self.0.wait().expect("a killed user ends");
    }
}

fn all_end(processes: &[ProcessId], bound: Duration) {
    wait::until(
        "every server ends",
        bound,
        || format!("{processes:?}"),
        || Ok(processes.iter().all(|process| !process.alive()).then_some(())),
    )
    .expect("no server is left");
}

#[test]
fn a_server_of_its_own_works_and_leaves_nothing() {
    let started = Instant::now();
    let server = ApiServer::start(&ApiServerOptions::with_controllers()).expect("it starts");
    println!("API server ready in {:.1} s", started.elapsed().as_secs_f64());
    let cluster = server.cluster();

    cluster.kubectl(&["create", "namespace", "one"]).expect("a namespace can be made");
    cluster.kubectl(&["create", "configmap", "thing", "--namespace=one"]).expect("an object can be made");
    // The controllers run: they make the default account, and they empty a namespace that is deleted.
    cluster
        .wait_for(
            &["get", "serviceaccount", "default", "--namespace=one", "--output=name"],
            "serviceaccount/default",
            BOUND,
        )
        .expect("the default account comes");

    // An account may do what its roles say and nothing else.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("account.kubeconfig");
    cluster.service_account_kubeconfig("one", "default", &path).expect("a kubeconfig for an account");
    let may = |verb: &[&str]| {
        let mut arguments = vec!["auth", "can-i", "--namespace=one"];
        arguments.extend(verb);
        cluster.kubectl_command().env("KUBECONFIG", &path).args(arguments).status().expect("kubectl runs").success()
    };
    assert!(!may(&["list", "configmaps"]), "an account without a role may list");
    cluster
        .kubectl(&[
            "create",
            "rolebinding",
            "view",
            "--clusterrole=view",
            "--serviceaccount=one:default",
            "--namespace=one",
        ])
        .expect("a binding can be made");
    wait::until("the binding holds", BOUND, String::new, || Ok(may(&["list", "configmaps"]).then_some(())))
        .expect("an account with a role may list");

    cluster.kubectl(&["delete", "namespace", "one", "--timeout=60s"]).expect("a namespace goes");
    let processes = server.processes().expect("its processes are known");
    assert_eq!(processes.len(), 4, "supervisor, etcd, kube-apiserver, kube-controller-manager");
    let folder = server.kubeconfig().parent().expect("it is in a folder").to_owned();
    drop(server);
    all_end(&processes, Duration::from_secs(5));
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[test]
fn processes_share_one_server_and_it_ends_after_the_last() {
    // Servers with other flags are other servers, so this one is this test's own.
    let flag = "--max-requests-inflight=401";
    let options = ApiServerOptions { api_server_flags: vec![flag.to_owned()], ..ApiServerOptions::default() };
    let users: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| User::start(flag))).collect();
        starting.into_iter().map(|thread| thread.join().expect("a user starts")).collect()
    });
    let server = ApiServer::shared(&options).expect("it is found");
    for (_, path) in &users {
        assert_eq!(Path::new(path), server.kubeconfig());
    }
    let processes = server.processes().expect("its processes are known");
    assert_eq!(processes.len(), 3, "supervisor, etcd, kube-apiserver");
    let folder = server.kubeconfig().parent().expect("it is in a folder").to_owned();

    // Users end by being killed. The server stays for the last of them.
    drop(users);
    server.cluster().kubectl(&["get", "--raw=/readyz"]).expect("it still answers");
    assert!(processes.iter().all(|process| process.alive()));

    drop(server);
    all_end(&processes, ApiServer::LINGER + Duration::from_secs(20));
    wait::until("its folder goes", BOUND, || folder.display().to_string(), || Ok((!folder.exists()).then_some(())))
        .expect("nothing is left");
}

#[test]
fn servers_end_with_their_supervisor_however_it_ends() {
    let server = ApiServer::start(&ApiServerOptions::default()).expect("it starts");
    let processes = server.processes().expect("its processes are known");
    processes[0].end().expect("the supervisor can be killed");
    all_end(&processes, Duration::from_secs(10));
}

#[test]
fn the_kubeconfig_is_found_where_the_layout_says() {
    let server = ApiServer::start(&ApiServerOptions::default()).expect("it starts");
    assert!(server.kubeconfig().starts_with(Layout::find().root().join("target/testbed/api")));
}
