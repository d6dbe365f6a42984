//! The program itself, asked to end as the kubelet and a terminal ask.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use saatkond_api::names::LEADER_LEASE;
use saatkond_testbed::Layout;
use support::{SYSTEM, bed, until};

/// Ends with the test, whatever becomes of it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(identity: &str) -> Program {
    // Beside the tests: `cargo build --workspace` has put it there.
    let program = std::env::current_exe().unwrap().parent().unwrap().with_file_name("saatkond");
    assert!(program.exists(), "{} is not built: cargo build --workspace --all-targets", program.display());
    let child = Command::new(program)
        .args(["operator", "--role=controller", "--image=registry.invalid/saatkond:test", "--lease-seconds=60"])
        .arg(format!("--identity={identity}"))
        .args(["--health-address=127.0.0.1:0"])
        .env("KUBECONFIG", bed().kubeconfig("saatkond-controller"))
        .current_dir(Layout::find().root())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Program(child)
}

/// Who holds the lease; nobody, after an orderly end, for the next one need not wait until it has expired.
async fn holder() -> String {
    let leases: Api<Lease> = Api::namespaced(bed().admin().await, SYSTEM);
    let lease = leases.get_opt(LEADER_LEASE).await.unwrap();
    lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_asked_to_end_gives_its_lease_back_and_says_that_all_went_well() {
    for signal in ["TERM", "INT"] {
        let identity = format!("asked-by-{}", signal.to_lowercase());
        let mut program = start(&identity);
        until(&format!("{identity} leads"), Duration::from_secs(30), || async {
            let now = holder().await;
            if now == identity { Ok(()) } else { Err(format!("{now:?} does")) }
        })
        .await;
        let pid = program.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let mut ended = None;
        for _ in 0..200 {
            ended = program.0.try_wait().unwrap();
            if ended.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut said = String::new();
        if ended.is_none() {
            program.0.kill().unwrap();
        }
        std::io::Read::read_to_string(&mut program.0.stderr.take().unwrap(), &mut said).unwrap();
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "after SIG{signal}:\n{said}");
        assert!(said.contains("asked to end"), "after SIG{signal}:\n{said}");
        assert_eq!(holder().await, "", "after SIG{signal}:\n{said}");
    }
}
