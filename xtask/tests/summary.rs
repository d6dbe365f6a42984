//! The end of `make test` (hack/summary.sh), on logs that are made up: nothing that failed or did not run may go unsaid.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What it says of these stages, and whether it takes them as passed. A stage: its log, and how it ended.
fn summary(stages: &[(&str, &str)], not_run: &str) -> (bool, String) {
    let checkout = tempfile::tempdir().unwrap();
    let (hack, record) = (checkout.path().join("hack"), checkout.path().join("target/stages"));
    fs::create_dir(&hack).unwrap();
    fs::create_dir_all(&record).unwrap();
    // The script finds its checkout by its own path.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/summary.sh");
    fs::copy(script, hack.join("summary.sh")).unwrap();
    let mut times = String::new();
    for (number, (log, result)) in stages.iter().enumerate() {
        let end = format!("<== stage{number}: {result} after {number} s\n");
        fs::write(record.join(format!("0{number}.log")), format!("==> stage{number}\n{log}\n{end}")).unwrap();
        times.extend([&*format!("stage{number}\t{}\t", number + 1), *result, "\n"]);
    }
    fs::write(record.join("TIMES"), times).unwrap();
    fs::write(record.join("NOT-RUN"), not_run).unwrap();
    let output = Command::new("bash").arg(hack.join("summary.sh")).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

const RUST: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
const GO: &str = "--- PASS: TestRouter (0.00s)\n--- PASS: TestOther (0.00s)\nPASS";

#[test]
fn what_passed_is_counted_over_all_runners_and_stages() {
    let (passed, said) = summary(&[(RUST, "ok"), (GO, "ok"), (RUST, "ok")], "");
    assert!(passed && said.ends_with("\n8 passed, 0 failed, 0 skipped\n"), "{said}");
    assert!(said.contains("nothing: everything ran") && said.contains("       6 s  in all"), "{said}");
}

#[test]
fn what_did_not_run_is_named_and_counted() {
    let tests = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                 NOT RUN: regions: SAATKOND_SKIP_REGIONS=1\n\
                 test a_test ... NOT RUN: journey: SAATKOND_SKIP_REGIONS=1";
    let (passed, said) = summary(&[(tests, "ok")], "all other tests: they need the tools\n");
    assert!(passed && said.ends_with("\n2 passed, 0 failed, 4 skipped\n"), "{said}");
    for line in [
        "  1 tests are marked as ignored",
        "  all other tests: they need the tools",
        "  journey: SAATKOND_SKIP_REGIONS=1",
        "  regions: SAATKOND_SKIP_REGIONS=1",
    ] {
        assert!(said.lines().any(|said| said == line), "{line:?} is not in {said}");
    }
    assert!(!said.contains("everything ran"), "{said}");
}

#[test]
fn what_failed_is_counted_fails_the_whole_and_says_why() {
    let tests = "thread 'a' panicked at operator/tests/faults.rs:1:1:\nnot reached within 20 s\n\
                 test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
    let (passed, said) = summary(&[(tests, "FAILED (exit 101)"), (RUST, "ok")], "");
    assert!(!passed && said.ends_with("\n5 passed, 1 failed, 0 skipped\n"), "{said}");
    assert!(said.contains("Failed stages\n  stage0\n") && said.contains("  not reached within 20 s"), "{said}");

    // A runner that died counts nothing: its stage has failed all the same.
    let (passed, said) = summary(&[("error: could not compile", "FAILED (exit 101)"), (RUST, "ok")], "");
    assert!(!passed && said.contains("Failed stages\n  stage0\n"), "{said}");
    // A failure that its runner did not pass on.
    let (passed, said) = summary(&[("--- FAIL: TestRouter (0.00s)", "ok")], "");
    assert!(!passed && said.ends_with("\n0 passed, 1 failed, 0 skipped\n"), "{said}");
}

#[test]
fn how_many_crashes_there_were_stands_in_the_summary() {
    let plans = "crash plans: 309 over 103 write sites (308 cut, 1 never came to their cut, 0 failed, 465 s)";
    let (_, said) = summary(&[(&format!("test every_crash ... {plans}\n{RUST}"), "ok")], "");
    assert!(said.lines().any(|line| line == plans), "{said}");
}
