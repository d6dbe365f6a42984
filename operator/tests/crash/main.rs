//! A crash at every write to the API server, in three variants: before it is sent; carried out, and the process dies;
//! carried out, and the answer is lost while the process goes on. After each, a new process must reach what a run without
//! faults reaches, with the same objects made and deleted as often, and leave no field taken by force behind.
//!
//! Four scenarios: a federation is set up; one that stands is changed and damaged; one that stands is taken down; the authority
//! of one that stands is replaced. Plans run on three API servers side by side. A plan is a federation with names of its own, so nothing of one is in another's way;
//! those that must stand before are brought up many at once, by one operator, and are quiet while others have their turn.
//!
//! Writes of the lease are not cut: when they happen is a matter of time, and losing it has tests of its own.
//!
//! `SAATKOND_CRASH=deep` (`make crash`) goes on with pairs of crashes and with random refusals of the API server, as far as
//! its time reaches. `CRASH_PLAN` runs the plans whose names begin so, `CRASH_SEED` repeats what was drawn at random.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod ledger;
mod life;
mod plans;
mod scenario;
mod stage;
mod state;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use plans::{Tally, carry_out, pairs, refusals, single, uncut};
use scenario::Scenario;
use stage::Stage;
use support::{bed, further_bed};

/// How long pairs and refusals may go on, each, in deep mode.
const PAIRS: Duration = Duration::from_mins(9);
const REFUSALS: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_ends_where_a_run_without_faults_ends() {
    let started = Instant::now();
    let stages = [Stage::open(bed()).await, Stage::open(further_bed()).await, Stage::open(further_bed()).await];
    let mut references = Vec::new();
    for scenario in Scenario::ALL {
        let reference = stages[0].reference(scenario, &format!("{}quiet", scenario.letter())).await;
        let list: Vec<_> = reference.sites.iter().map(ToString::to_string).collect();
        eprintln!("{scenario:?}: {} write sites\n  {}", list.len(), list.join("\n  "));
        references.push(reference);
    }
    let sites = references.iter().map(|reference| reference.sites.len());
    let sites: Vec<_> = sites.collect();
    // Fewer would mean that a scenario does not do any more what it is for.
    let fewest: [usize; Scenario::ALL.len()] = [16, 11, 4, 11, 11];
    assert!(sites.iter().zip(fewest).all(|(sites, fewest)| *sites >= fewest), "{sites:?}");
    assert!(references[Scenario::Departure as usize].sites.iter().any(|site| site.what.starts_with("delete ")));

    let done = carry_out(&stages, &references, single(&references), None).await;
    let Tally { plans, struck, shares, cut, mut failures } = done;
    println!(
        "crash plans: {plans} over {} write sites ({struck} cut, {} never came to their cut, {} failed, {:.0} s)",
        sites.iter().sum::<usize>(),
        plans.saturating_sub(struck + failures.len()),
        failures.len(),
        started.elapsed().as_secs_f64()
    );
    if std::env::var("CRASH_PLAN").is_err() {
        for (scenario, (plans, struck)) in Scenario::ALL.into_iter().zip(shares) {
            let (uncut, never) = uncut(&references[scenario as usize].sites, &cut[scenario as usize]);
            println!("{scenario:?}: {struck} of {plans} plans were cut; not cut:{}", uncut.concat());
            // A plan that failed says so itself.
            assert!(never.is_empty() || !failures.is_empty(), "{scenario:?}: never cut:{}", never.concat());
            assert!(
                struck * 100 >= plans * scenario.least(),
                "only {struck} of {plans} plans of {scenario:?} were cut"
            );
        }
    }

    if std::env::var("SAATKOND_CRASH").is_ok_and(|mode| mode == "deep") {
        let given = std::env::var("CRASH_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| jiff::Timestamp::now().as_second().unsigned_abs());
        println!("drawn at random with CRASH_SEED={seed}");
        let mut sequence = seed | 1;
        let kinds =
            [("pairs", PAIRS, pairs(&references, &mut sequence)), ("refusals", REFUSALS, refusals(&mut sequence))];
        for (what, bound, plans) in kinds {
            let (all, began) = (plans.len(), Instant::now());
            let done = carry_out(&stages, &references, plans, Some(began + bound)).await;
            println!(
                "{what}: {} of {all} plans ({} struck as planned, {} failed, {:.0} s)",
                done.plans,
                done.struck,
                done.failures.len(),
                began.elapsed().as_secs_f64()
            );
            failures.extend(done.failures);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
