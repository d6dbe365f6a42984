//! The short form of `make rotate-under-load`: one change of the authority under calls, the controller dying at each of its writes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::time::Duration;

use saatkond_testbed::Layout;
use saatkond_under_load::outcome::Demands;
use saatkond_under_load::scene::{Settings, run};

#[test]
fn authorities_change_under_calls_and_the_controller_dies_at_each_write() {
    if std::env::var_os("SAATKOND_SKIP_REGIONS").is_some_and(|value| value == "1") {
        println!("NOT RUN: rotate-under-load: SAATKOND_SKIP_REGIONS=1");
        return;
    }
    let settings =
        Settings { rotations: 1, requests: 0, ways: 1, is_rough: false, seed: 1, bound: Duration::from_mins(10) };
    let outcome = run(&Layout::find(), settings).unwrap();
    println!("{outcome}");
    // Of three ways to cut a write two end the controller, and two that are cut at one moment end it once.
    let short = outcome.short_of(Demands { requests: 10_000, rotations: 1, kills: 5 });
    assert!(short.is_empty(), "{short:#?}\n{:#?}", outcome.failures);
}
