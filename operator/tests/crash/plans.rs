//! Which crashes there are, and carrying all of them out.

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::future::join_all;
use saatkond_operator::client::Verdict;

use crate::life::{Fate, Site, draw};
use crate::scenario::Scenario;
use crate::stage::{Reference, Stage};

/// One plan that is to be carried out.
#[derive(Clone)]
pub struct Plan {
    pub name: String,
    pub scenario: Scenario,
    pub fates: Vec<Fate>,
    /// Which write of the run without faults it is to cut and how, where it is to cut one alone: places in its sites and in
    /// [`VERDICTS`].
    pub site: Option<(usize, usize)>,
    pub about: String,
}

/// What came of plans.
#[derive(Default)]
pub struct Tally {
    pub plans: usize,
    pub struck: usize,
    /// Of each scenario: plans, and of them those whose fates came to pass.
    pub shares: [(usize, usize); Scenario::ALL.len()],
    /// Of each scenario: which write sites were cut, and how.
    pub cut: [BTreeSet<(usize, usize)>; Scenario::ALL.len()],
    pub failures: Vec<String>,
}

/// Federations that stand at once. Many are brought up sooner than one by one, but each operator that starts looks at all.
pub const BATCH: usize = 5;

/// Carries plans out on all stages side by side: nearly all of a plan's time is waiting.
pub async fn carry_out(stages: &[Stage], references: &[Reference], plans: Vec<Plan>, until: Option<Instant>) -> Tally {
    let only = std::env::var("CRASH_PLAN").ok();
    let plans = plans.into_iter().filter(|plan| only.as_ref().is_none_or(|only| plan.name.starts_with(only)));
    let mut shares = vec![Vec::new(); stages.len()];
    plans.enumerate().for_each(|(number, plan)| shares[number % stages.len()].push(plan));
    let done = stages.iter().zip(shares).map(|(stage, share)| carry_out_on(stage, references, share, until));
    join_all(done).await.into_iter().fold(Tally::default(), |mut all, tally| {
        all.plans += tally.plans;
        all.struck += tally.struck;
        for (sum, (plans, struck)) in all.shares.iter_mut().zip(tally.shares) {
            *sum = (sum.0 + plans, sum.1 + struck);
        }
        for (all, cut) in all.cut.iter_mut().zip(tally.cut) {
            all.extend(cut);
        }
        all.failures.extend(tally.failures);
        all
    })
}

async fn carry_out_on(stage: &Stage, references: &[Reference], plans: Vec<Plan>, until: Option<Instant>) -> Tally {
    let (all, started) = (plans.len(), Instant::now());
    let mut tally = Tally::default();
    let first: Vec<_> = plans.chunks(BATCH).map(<[Plan]>::to_vec).collect();
    let mut rounds = std::collections::VecDeque::from(first);
    let mut again = Vec::new();
    while let Some(batch) = rounds.pop_front() {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let standing: Vec<_> = batch.iter().filter(|plan| plan.scenario != Scenario::SetUp).collect();
        stage.bring_up(&standing.iter().map(|plan| plan.name.clone()).collect::<Vec<_>>()).await;
        for plan in &batch {
            let wanted = &references[plan.scenario as usize];
            tally.plans += 1;
            match stage.plan(plan.scenario, &plan.name, &plan.fates, wanted).await {
                // Which of two objects is looked at first is a matter of moments, and with it how many writes there are:
                // what was not cut is tried once more.
                Ok(struck) if struck < plan.fates.len() && until.is_none() && !plan.name.ends_with('z') => {
                    tally.plans -= 1;
                    again.push(Plan { name: format!("{}z", plan.name), ..plan.clone() });
                }
                Ok(struck) => {
                    let all = usize::from(struck == plan.fates.len());
                    tally.struck += all;
                    let share = &mut tally.shares[plan.scenario as usize];
                    *share = (share.0 + 1, share.1 + all);
                    tally.cut[plan.scenario as usize].extend(plan.site.filter(|_| all == 1));
                }
                Err(why) => {
                    let failure = format!("{} {:?}, {}: {why}", plan.name, plan.scenario, plan.about);
                    // At once, so that a long run shows where it stands.
                    eprintln!("{failure}");
                    tally.failures.push(failure);
                }
            }
            stage.clear(&plan.name).await;
        }
        if rounds.is_empty() {
            rounds.extend(again.chunks(BATCH).map(<[Plan]>::to_vec));
            again.clear();
        }
        let failed = tally.failures.len();
        eprintln!("{} of {all} plans, {failed} failed, {:.0} s", tally.plans, started.elapsed().as_secs_f64());
    }
    tally
}

pub const VERDICTS: [(char, Verdict); 3] =
    [('a', Verdict::DieBefore), ('b', Verdict::DieAfter), ('c', Verdict::LoseAnswer)];

/// One crash at each write, in each variant.
pub fn single(references: &[Reference]) -> Vec<Plan> {
    let mut plans = Vec::new();
    for scenario in Scenario::ALL {
        for (number, site) in references[scenario as usize].sites.iter().enumerate() {
            for (variant, (letter, verdict)) in VERDICTS.into_iter().enumerate() {
                plans.push(Plan {
                    name: format!("{}x{number}{letter}", scenario.letter()),
                    scenario,
                    fates: vec![Fate::CutSite(site.clone(), verdict)],
                    site: Some((number, variant)),
                    about: format!("{verdict:?} at {site}"),
                });
            }
        }
    }
    plans
}

/// What was not cut: each write with the variant; and of that what was cut so nowhere, however often it comes in a run.
///
/// How often the same is written is a matter of moments (which news arrives together), so the last of several may not come. That
/// something is written at all is not.
pub fn uncut(sites: &[Site], cut: &BTreeSet<(usize, usize)>) -> (Vec<String>, Vec<String>) {
    let (mut uncut, mut never) = (Vec::new(), Vec::new());
    for (number, site) in sites.iter().enumerate() {
        for (variant, (_, verdict)) in VERDICTS.iter().enumerate() {
            if cut.contains(&(number, variant)) {
                continue;
            }
            let line = format!("\n  {verdict:?} at {site}");
            let elsewhere = |(other, how): &(usize, usize)| *how == variant && sites[*other].what == site.what;
            if !cut.iter().any(elsewhere) {
                never.push(line.clone());
            }
            uncut.push(line);
        }
    }
    (uncut, never)
}

/// A crash, and another one soon after the restart; in an order drawn at random, since not all have the time.
pub fn pairs(references: &[Reference], seed: &mut u64) -> Vec<Plan> {
    let mut plans = Vec::new();
    for scenario in Scenario::ALL {
        for (number, site) in references[scenario as usize].sites.iter().enumerate() {
            for second in 0..5 {
                for ((one, first), (other, then)) in
                    VERDICTS[..2].iter().flat_map(|first| VERDICTS[..2].iter().map(move |then| (first, then)))
                {
                    plans.push(Plan {
                        name: format!("{}x{number}{one}{second}{other}", scenario.letter()),
                        scenario,
                        fates: vec![Fate::CutSite(site.clone(), *first), Fate::CutNumber(second, *then)],
                        site: None,
                        about: format!("{first:?} at {site}, then {then:?} at write {second}"),
                    });
                }
            }
        }
    }
    shuffled(plans, seed)
}

/// Refusals at random.
pub fn refusals(seed: &mut u64) -> Vec<Plan> {
    let plan = |number: usize| {
        let (scenario, seed) = (Scenario::ALL[number % Scenario::ALL.len()], draw(seed) | 1);
        Plan {
            name: format!("{}r{number}", scenario.letter()),
            scenario,
            fates: vec![Fate::Refused { seed, left: 10 }],
            site: None,
            about: format!("refusals of seed {seed}"),
        }
    };
    (0..300).map(plan).collect()
}

pub fn shuffled(mut plans: Vec<Plan>, seed: &mut u64) -> Vec<Plan> {
    for last in (1..plans.len()).rev() {
        let other = usize::try_from(draw(seed)).unwrap() % (last + 1);
        plans.swap(last, other);
    }
    plans
}

#[test]
fn what_was_cut_at_no_time_is_told_by_write_and_variant() {
    let calls = ["patch a in stem", "patch b in stem", "patch a in stem"].map(str::to_owned);
    let sites = Site::all(&calls, "stem");
    let words: Vec<_> = sites.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["patch a in STEM", "patch b in STEM", "patch a in STEM (after 1 such)"]);
    let all = |number| (0..VERDICTS.len()).map(move |variant| (number, variant));
    // The second of the same is not cut: somewhere it is. One variant of another is cut nowhere.
    let cut = all(0).chain(all(1).filter(|(_, variant)| *variant != 2)).collect();
    let (uncut, never) = uncut(&sites, &cut);
    assert_eq!(uncut.len(), 4, "{uncut:?}");
    assert_eq!(never, ["\n  LoseAnswer at patch b in STEM"]);
}
