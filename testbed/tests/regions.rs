//! Regions: what works in one, what can be broken between two, and that nothing is left of them.
//!
//! All in a checkout of its own (a folder with the installed tools), so that regions somebody works with are not
//! touched, and in one test each after the other, so that counting means something. Where other clusters stand in for
//! regions, these tests say that they did not run: what they start, count and break are regions of the testbed's own.

#![expect(clippy::panic, reason = "helpers of tests fail like tests")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use saatkond_testbed::{
    ApiServer, ApiServerOptions, Cluster, DEFAULT_REGIONS, Direction, Faults, KUBECONFIGS, Layout, Leftovers, Region,
    image::{self, ImageSpec},
    preflight, wait,
};

const BOUND: Duration = Duration::from_mins(2);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder that looks like a checkout with all tools installed.
struct Checkout {
    layout: Layout,
    _folder: tempfile::TempDir,
}

impl Checkout {
    /// None when the regions' tests were asked not to run, which is said in a line that can be counted.
    fn new(test: &str) -> Option<Self> {
        if std::env::var_os("SAATKOND_SKIP_REGIONS").is_some_and(|value| value == "1") {
            println!("NOT RUN: {test}: SAATKOND_SKIP_REGIONS=1");
            return None;
        }
        if Region::external().expect("the variable can be read").is_some() {
            println!("NOT RUN: {test}: {KUBECONFIGS} is set");
            return None;
        }
        if let Err(why) = preflight(&Layout::find()) {
            panic!("{why}\nSAATKOND_SKIP_REGIONS=1 runs the other tests.");
        }
        let folder = folder_with_tools();
        Some(Self { layout: Layout::at(folder.path()), _folder: folder })
    }

    fn testbed(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        command.args(arguments).env("SAATKOND_ROOT", self.layout.root());
        command
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for region in Region::list(&self.layout).unwrap_or_default() {
                eprintln!("{}", region.dump());
            }
        }
        Region::down_all(&self.layout).expect("everything can be taken down");
    }
}

fn folder_with_tools() -> tempfile::TempDir {
    let real = Layout::find();
    // Not in /tmp only for its size: images are unpacked below it.
    fs::create_dir_all(real.root().join("target/testbed")).expect("target can be written");
    let folder = tempfile::tempdir_in(real.root().join("target/testbed")).expect("a folder");
    fs::create_dir_all(folder.path().join("target")).expect("a folder");
    std::os::unix::fs::symlink(real.root().join("target/tools"), folder.path().join("target/tools")).expect("a link");
    folder
}

fn timed<T>(what: &str, task: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = task();
    println!("{what}: {:.1} s", started.elapsed().as_secs_f64());
    result
}

fn nothing_left(layout: &Layout, before: &Leftovers) {
    // The kernel removes a network namespace a moment after its last process.
    let gone = wait::until("everything is gone", Duration::from_secs(15), String::new, || {
        Ok((Leftovers::count(layout) == *before).then_some(()))
    });
    if gone.is_err() {
        assert_eq!(&Leftovers::count(layout), before);
    }
    let regions: Vec<_> = fs::read_dir(layout.regions()).into_iter().flatten().flatten().collect();
    assert!(regions.iter().all(|entry| !entry.path().is_dir()), "folders are left: {regions:?}");
}

/// An HTTP server with a volume, a client, and Services of both kinds.
const WORKLOAD: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {app: web}}
spec:
  securityContext: {runAsUser: 65532, runAsNonRoot: true}
  containers:
  - name: web
    image: probe:test
    args: [probe, serve, "8080", /data/text, REGION]
    ports: [{name: http, containerPort: 8080}]
    volumeMounts: [{name: data, mountPath: /data}]
    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
  terminationGracePeriodSeconds: 0
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client}}
spec:
  containers:
  - {name: client, image: "probe:test", args: [probe, serve, "8080", /tmp/text, client]}
  terminationGracePeriodSeconds: 0
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: http, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced, namespace: default}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 8081, targetPort: http}]}
"#;

/// What a pod of the region gets from an address.
fn fetch(region: &Region, address: &str) -> Result<String, String> {
    let exec = ["exec", "client", "--", "/testbed", "probe", "fetch", address];
    region.cluster().kubectl(&exec).map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
}

fn fetch_until(region: &Region, address: &str, expected: Option<&str>) {
    let last = std::cell::RefCell::new(String::new());
    wait::until(
        &format!("{address} from {} gives {expected:?}", region.name()),
        BOUND,
        || last.borrow().clone(),
        || {
            let got = fetch(region, address);
            *last.borrow_mut() = format!("{got:?}");
            Ok((got.ok().as_deref() == expected).then_some(()))
        },
    )
    .unwrap_or_else(|error| panic!("{error}"));
}

/// Of 400 datagrams from one node to another, how many arrive.
fn datagrams(from: &Region, to: &Region) -> usize {
    let address = to.address().expect("it has an address");
    let receiver = to
        .inside_network(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .expect("its network can be entered")
        .expect("a socket");
    let port = receiver.local_addr().expect("it is bound").port();
    let sender = from
        .inside_network(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .expect("its network can be entered")
        .expect("a socket");
    receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("a bound");
    let mut arrived = 0;
    // In portions that the receiver's buffer holds.
    for _ in 0..4 {
        for _ in 0..100 {
            sender.send_to(b"x", (address, port)).expect("it can send");
        }
        let mut portion = 0;
        while portion < 100 && receiver.recv(&mut [0; 8]).is_ok() {
            portion += 1;
        }
        arrived += portion;
    }
    arrived
}

/// How long one round trip takes at least: connections to the other region's API server. The fastest of several, as
/// a busy machine makes any of them slower.
fn round_trip(from: &Region, to: &Region) -> Duration {
    let address = SocketAddr::from((to.address().expect("it has an address"), 6443));
    let connect = || {
        let started = Instant::now();
        TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("it connects");
        started.elapsed()
    };
    from.inside_network(|| (0..8).map(|_| connect()).min()).expect("its network can be entered").expect("eight of them")
}

fn probe_image(layout: &Layout) -> std::path::PathBuf {
    let archive = layout.root().join("probe.tar");
    let spec = ImageSpec {
        name: "probe:test".to_owned(),
        files: [("/testbed".to_owned(), env!("CARGO_BIN_EXE_testbed").into())].into(),
        entrypoint: vec!["/testbed".to_owned()],
        ..ImageSpec::default()
    };
    image::build(&spec, &archive).expect("an image can be built");
    archive
}

#[test]
fn regions_work_break_heal_and_go() {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(checkout) = Checkout::new("regions_work_break_heal_and_go") else { return };
    let layout = &checkout.layout;
    let before = Leftovers::count(layout);
    // As a checkout at this path leaves it that is removed with its regions up: the kernel keeps the bridge and its address.
    let bridge = format!("sk{}", layout.id());
    for arguments in [["link", "add", &bridge, "type", "bridge"], ["address", "add", "10.249.255.1/24", "dev", &bridge]]
    {
        assert!(Command::new("ip").args(arguments).status().expect("ip runs").success());
    }
    // As a person does, who names none.
    let done = timed("three regions ready", || checkout.testbed(&["up"]).output()).expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    for name in DEFAULT_REGIONS {
        let kubeconfig = layout.regions().join(name).join("kubeconfig");
        assert!(said.contains(&format!("{name}\t{}\n", kubeconfig.display())), "{name} is not in {said}");
    }
    let open = |name| Region::open(layout, name).expect("it is up");
    let (home, lux) = (&open("home"), &open("lux"));
    let during = Leftovers::count(layout);
    assert!(during.processes.len() >= 20 && during.network_namespaces >= 3, "the count sees what there is: {during:?}");
    assert!(during.cgroups.len() >= 3 && during.devices.len() == 4, "the count sees what there is: {during:?}");
    assert_eq!(home.kubeconfig(), layout.root().join("target/regions/home/kubeconfig"));
    timed("a second start", || Region::up_in(layout, "home")).expect("it is found running");

    timed("a workload in both", || {
        let archive = probe_image(layout);
        for region in [home, lux] {
            region.load_image(&archive).expect("an image can be loaded");
            region.cluster().apply(&WORKLOAD.replace("REGION", region.name())).expect("a workload can be applied");
        }
        for region in [home, lux] {
            region
                .cluster()
                .kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=90s"])
                .expect("pods run, and the claim is bound");
        }
    });
    let address = home.address().expect("it has an address");
    let balanced = ["get", "service", "balanced", "--output=jsonpath={.status.loadBalancer.ingress[0].ip}"];
    home.cluster().wait_for(&balanced, &address.to_string(), BOUND).expect("a load balancer has the node's address");

    // Names, Services, and the way from one region's pod to the other's.
    fetch_until(home, "web.default.svc.cluster.local:80", Some("home"));
    fetch_until(home, "web:80", Some("home"));
    let (node_port, load_balancer) = (format!("{address}:30080"), format!("{address}:8081"));
    fetch_until(lux, &node_port, Some("home"));
    fetch_until(lux, &load_balancer, Some("home"));

    policies(home);
    faults(layout, home, lux, &node_port);

    timed("volumes go with their claims", || {
        home.cluster().kubectl(&["delete", "pod/web", "pvc/data", "--timeout=60s"]).expect("they go");
        home.cluster().wait_for(&["get", "pv", "--output=name"], "", BOUND).expect("the volume goes");
    });
    timed("one region down", || Region::down_in(layout, "lux")).expect("it goes");
    home.cluster().kubectl(&["get", "--raw=/readyz"]).expect("the other stays");
    ends_that_are_cut_short(&checkout);
    timed("all down", || Region::down_all(layout)).expect("they go");
    nothing_left(layout, &before);
    Region::down_all(layout).expect("twice is harmless");
    Region::down_in(layout, "lux").expect("twice is harmless");
    nothing_left(layout, &before);
}

/// Home and fin are up, with a slow cable between them. The keeper of one dies; ending them is killed early, then late.
fn ends_that_are_cut_short(checkout: &Checkout) {
    let layout = &checkout.layout;
    let folder = |name: &str| layout.regions().join(name);
    Faults::new(layout).delay("home", "fin", Duration::from_millis(40)).expect("delay");
    kill_keeper_of(&folder("fin"));
    let cut = |what: &str, reached: &dyn Fn() -> bool| {
        let mut ending = checkout.testbed(&["down"]).stderr(Stdio::null()).spawn().expect("it starts");
        wait::until(what, BOUND, String::new, || Ok(reached().then_some(()))).expect("it comes that far");
        ending.kill().expect("it can be killed");
        ending.wait().expect("it ends");
    };
    let wire = layout.regions().join(".wires/fin-home.json");
    assert!(wire.exists());
    cut("the slow cable is gone", &|| !wire.exists());
    let again = timed("a start after it", || Region::up_in(layout, "home")).expect("it is whole again");
    again.cluster().kubectl(&["get", "--raw=/readyz"]).expect("it answers");
    cut("one region is gone", &|| !folder("home").exists() || !folder("fin").exists());
}

fn policies(home: &Region) {
    timed("a policy closes and opens", || {
        let policy = |rule: &str| {
            format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: web, namespace: default}}, \
                 spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], ingress: [{rule}]}}}}"
            )
        };
        home.cluster().apply(&policy("")).expect("a policy");
        fetch_until(home, "web:80", None);
        home.cluster()
            .apply(&policy("{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}"))
            .expect("a policy");
        fetch_until(home, "web:80", Some("home"));
        home.cluster().apply(&policy("{from: [{podSelector: {matchLabels: {app: other}}}]}")).expect("a policy");
        fetch_until(home, "web:80", None);
        home.cluster().kubectl(&["delete", "networkpolicy", "web"]).expect("it goes");
        fetch_until(home, "web:80", Some("home"));
    });
}

fn faults(layout: &Layout, home: &Region, lux: &Region, node_port: &str) {
    let faults = Faults::new(layout);
    assert_eq!((datagrams(home, lux), datagrams(lux, home)), (400, 400), "all arrives at first");

    faults.partition("home", "lux", Direction::OneWay).expect("one way");
    assert_eq!((datagrams(home, lux), datagrams(lux, home)), (0, 400), "only what home sends is lost");
    assert!(fetch(lux, node_port).is_err(), "an answer from home would have to pass");
    faults.partition("home", "lux", Direction::Both).expect("both ways");
    assert_eq!((datagrams(home, lux), datagrams(lux, home)), (0, 0), "nothing passes");
    home.cluster().kubectl(&["get", "--raw=/readyz"]).expect("the host still reaches it");
    faults.heal().expect("healed");
    assert_eq!((datagrams(home, lux), datagrams(lux, home)), (400, 400), "all arrives again");

    faults.loss("home", "lux", 30.0).expect("loss");
    for arrived in [datagrams(home, lux), datagrams(lux, home)] {
        // 400 with 0.7: the deviation is 9, so this is eight of them to either side.
        assert!((205..=355).contains(&arrived), "{arrived} of 400 arrived with 30 % loss");
    }
    faults.heal().expect("healed");

    let plain = round_trip(lux, home);
    faults.delay("home", "lux", Duration::from_millis(40)).expect("delay");
    let delayed = round_trip(lux, home);
    println!("round trip: {plain:?}, with 40 ms each way: {delayed:?}");
    assert!(delayed >= Duration::from_millis(80), "{delayed:?} with 40 ms each way");
    assert!(plain < Duration::from_millis(40), "{plain:?} without delay");
    fetch_until(lux, node_port, Some("home"));
    faults.delay("lux", "home", Duration::from_millis(10)).expect("another delay");
    assert!(round_trip(home, lux) >= Duration::from_millis(20));
    // Both at once: what is delayed can be lost too.
    faults.partition("home", "lux", Direction::Both).expect("both ways");
    assert_eq!(datagrams(home, lux), 0);
    faults.heal().expect("healed");
    assert!(round_trip(lux, home) < Duration::from_millis(40));
    fetch_until(lux, node_port, Some("home"));
    assert!(faults.partition("home", "nowhere", Direction::Both).is_err(), "an unknown region is refused");
}

/// How a start ends before its time.
#[derive(PartialEq)]
enum End {
    Starter,
    StarterAndKeeper,
    /// Ctrl-C.
    Interrupt,
}

fn signal(name: &str, whom: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), "--", whom]).status().expect("kill runs").success());
}

#[test]
fn a_start_that_is_killed_half_way_leaves_nothing() {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(checkout) = Checkout::new("a_start_that_is_killed_half_way_leaves_nothing") else { return };
    let layout = &checkout.layout;
    let before = Leftovers::count(layout);
    // As early as the keeper exists; when its init does; when the API server has its data.
    for stage in ["kept.json", "logs/etcd.log", "etcd/data/member"] {
        for end in [End::Starter, End::StarterAndKeeper, End::Interrupt] {
            // As a shell does it: what a terminal interrupts is the group.
            let mut starter = checkout
                .testbed(&["up", "home"])
                .process_group(0)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("it starts");
            let reached = layout.regions().join("home").join(stage);
            wait::until(stage, BOUND, String::new, || Ok(reached.exists().then_some(()))).expect("it comes that far");
            match end {
                End::Starter | End::StarterAndKeeper => starter.kill().expect("it can be killed"),
                End::Interrupt => signal("INT", &format!("-{}", starter.id())),
            }
            starter.wait().expect("it ends");
            if end == End::StarterAndKeeper {
                kill_keeper_of(&layout.regions().join("home"));
            }
            let done = checkout.testbed(&["down"]).output().expect("it runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            nothing_left(layout, &before);
        }
    }
}

/// What a crash of the whole machine's users would do: nobody is left who could clean up.
fn kill_keeper_of(folder: &Path) {
    let text = fs::read_to_string(folder.join("kept.json")).expect("it is recorded");
    let kept: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    signal("KILL", &kept["keeper"]["pid"].to_string());
}

#[test]
fn a_machine_that_lacks_something_is_told_what() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = preflight(&Layout::at(folder.path())).expect_err("nothing is installed there").to_string();
    for expected in ["kubelet: run testbed/install.sh regions", "SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path"] {
        assert!(said.contains(expected), "{expected:?} is not in {said}");
    }
}

/// What `testbed` says in a checkout where the variable has this value, and whether it did what it was asked to.
fn testbed_with(clusters: &str, layout: &Layout, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.args(arguments).env("SAATKOND_ROOT", layout.root()).env(KUBECONFIGS, clusters);
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_cluster_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = Layout::at(folder.path());
    for (clusters, name, expected) in [
        ("home=/nowhere", "fin", "\"fin\": is not in SAATKOND_REGION_KUBECONFIGS, which names home"),
        ("home=/nowhere", "home", "\"home\": SAATKOND_REGION_KUBECONFIGS names /nowhere: No such file"),
        ("home=/nowhere,lux", "home", "SAATKOND_REGION_KUBECONFIGS: \"lux\": is not NAME=/path/to/kubeconfig"),
        ("home=config", "home", "SAATKOND_REGION_KUBECONFIGS: \"home=config\": the path does not begin with /"),
    ] {
        let (done, said) = testbed_with(clusters, &layout, &["up", name]);
        assert!(!done && said.contains(expected), "{expected:?} is not in {said}");
    }
}

#[test]
fn a_cluster_that_exists_is_used_and_left_alone() {
    let server = ApiServer::start(&ApiServerOptions::default()).expect("a cluster, as far as this goes");
    let folder = folder_with_tools();
    let layout = Layout::at(folder.path());
    let clusters = format!("home={}", server.kubeconfig().display());
    let testbed = |arguments: &[&str]| testbed_with(&clusters, &layout, arguments);
    let copy = layout.regions().join("home/kubeconfig");

    let does: [(&[&str], &str); 4] = [
        (&["preflight"], "home answers"),
        // All that the variable names, and not home, lux and fin.
        (&["up"], "testbed: 1 regions ready"),
        (&["status"], "home\texternal\t"),
        (&["dump", "home"], "=== region home\na cluster that SAATKOND_REGION_KUBECONFIGS names"),
    ];
    for (arguments, expected) in does {
        let (done, said) = testbed(arguments);
        assert!(done && said.contains(expected), "{arguments:?}: {expected:?} is not in {said}");
    }
    assert!(
        Cluster::new(&layout, &copy).expect("kubectl is there").ready(),
        "its kubeconfig stands where regions have it"
    );

    let before = fs::read(&copy).expect("it can be read");
    let refuses: [(&[&str], &str); 6] = [
        (&["partition", "home", "lux"], "partitions, loss and delay need regions of the testbed's own"),
        (&["loss", "home", "lux", "5"], "partitions, loss and delay need regions of the testbed's own"),
        (&["delay", "home", "lux", "40"], "partitions, loss and delay need regions of the testbed's own"),
        (&["heal"], "partitions, loss and delay need regions of the testbed's own"),
        (&["image", "load", "/image.tar"], "region \"home\": is a cluster that SAATKOND_REGION_KUBECONFIGS names"),
        (&["down", "lux"], "\"lux\": is not in SAATKOND_REGION_KUBECONFIGS"),
    ];
    for (arguments, expected) in refuses {
        let (done, said) = testbed(arguments);
        assert!(!done && said.contains(expected), "{arguments:?}: {expected:?} is not in {said}");
    }
    assert_eq!(fs::read(&copy).expect("it can be read"), before);
    assert!(!layout.regions().join("faults.json").exists(), "what is refused is not remembered");

    for arguments in [&["down", "home"][..], &["down"]] {
        assert!(testbed(&["up"]).0 && copy.exists());
        let (done, said) = testbed(arguments);
        assert!(done && said.contains("Left as they are: home, and regions of this checkout"), "{said}");
        assert!(!copy.exists(), "the copy goes");
        assert!(server.cluster().ready(), "the cluster stays");
    }
}

#[test]
fn a_region_of_ours_does_not_lose_its_name_to_another_cluster() {
    let folder = folder_with_tools();
    let layout = Layout::at(folder.path());
    let home = layout.regions().join("home");
    fs::create_dir_all(&home).expect("a folder");
    fs::write(home.join("region.json"), "{}").expect("it can be written");
    fs::write(home.join("kubeconfig"), "ours").expect("it can be written");
    let other = folder.path().join("other");
    fs::write(&other, "another").expect("it can be written");
    let clusters = format!("home={}", other.display());
    let (done, said) = testbed_with(&clusters, &layout, &["up", "home"]);
    assert!(!done && said.contains("this checkout has a region of that name"), "{said}");
    let (done, said) = testbed_with(&clusters, &layout, &["down"]);
    assert!(done && said.contains("and regions of this checkout"), "{said}");
    assert_eq!(fs::read_to_string(home.join("kubeconfig")).expect("it is there"), "ours");
    assert!(home.join("region.json").exists());
}
