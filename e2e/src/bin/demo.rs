//! `make demo`: a federation declared in YAML exchanges data, told step by step. It leaves the region running.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use saatkond_e2e::answer::Answer;
use saatkond_e2e::federation::{self, BENEFITS, CLINIC, Caller, PERSONS, POLICE, SPECIMEN};
use saatkond_e2e::install;
use saatkond_e2e::narrate::Narrator;
use saatkond_e2e::operator;
use saatkond_e2e::repair::POPULATION;
use saatkond_testbed::{Layout, Region};

fn main() -> ExitCode {
    let layout = Layout::find();
    let mut narrator = Narrator::default();
    let region = match begin(&layout, &mut narrator) {
        Ok(region) => region,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let result = show(&layout, &region, &mut narrator);
    if let Err(error) = result {
        // However the demo ends, the operator is left running.
        let back = operator::start(region.cluster());
        eprintln!("{}\ndemo: {error:#}", region.dump());
        if let Err(error) = back {
            eprintln!("demo: the operator could not be started again: {error:#}");
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn begin(layout: &Layout, narrator: &mut Narrator) -> anyhow::Result<Region> {
    narrator.step("A real Kubernetes: region home");
    let region = Region::up("home")?;
    narrator.show(&region.cluster().kubectl(&["get", "nodes", "-o", "wide"])?);

    narrator.step("Saatkond, by its Helm chart");
    let began = Instant::now();
    install::install(layout, &region)?;
    narrator.say(&format!("controller and link are ready after {}", seconds(began.elapsed())));
    narrator.show(&region.cluster().kubectl(&["-n", install::NAMESPACE, "get", "pods"])?);
    Ok(region)
}

fn show(layout: &Layout, region: &Region, narrator: &mut Narrator) -> anyhow::Result<()> {
    let cluster = region.cluster();
    let person = format!("{PERSONS}/{SPECIMEN}");

    narrator.step("A federation, in YAML: kubectl apply -f examples/federation/");
    federation::apply(layout, cluster)?;
    let took = federation::until_ready(cluster, |object, ready, all| {
        narrator.say(&format!("{object} is Ready ({ready} of {all})"));
    })?;
    narrator.say(&format!("all objects are Ready {} after they were applied", seconds(took)));
    narrator.show(&format!("$ kubectl get saatkond -A\n{}", cluster.kubectl(&["get", "saatkond", "-A"])?));
    federation::until_apps_ready(cluster)?;
    narrator.say("the information systems run: PostgreSQL with 10,000 made-up persons, an HTTP service before it");

    narrator.step("The benefits agency may read persons");
    let answer = federation::call_until_served(cluster, BENEFITS, &person, Duration::from_mins(1))?;
    tell_call(narrator, BENEFITS, &person, &answer);

    narrator.step("The clinic has no server of its own; it is a guest on the benefits agency's");
    let answer = federation::call_until_served(cluster, CLINIC, &person, Duration::from_mins(1))?;
    tell_call(narrator, CLINIC, &person, &answer);

    narrator.step("The police may not");
    let answer = federation::call(cluster, POLICE, &person)?;
    tell_call(narrator, POLICE, &person, &answer);
    let error = answer.header("x-road-error").unwrap_or_default();
    ensure!(error.ends_with("access_denied"), "the call of the police was answered {} {error:?}", answer.status);

    narrator.step("A gateway's pod is killed");
    let killed = POPULATION.kill_one(cluster, Duration::from_mins(2))?;
    let text = format!("{} took the place of {} after {}", killed.successor, killed.pod, seconds(killed.took));
    narrator.say(&text);

    narrator.step("Its Service is edited and its PodDisruptionBudget deleted, by hand");
    for edited in [
        POPULATION.edit_service(cluster, Duration::from_secs(30))?,
        POPULATION.delete_child(cluster, "poddisruptionbudget", Duration::from_secs(30))?,
    ] {
        narrator.say(&format!("{}: put right after {}", edited.what, seconds(edited.took)));
    }
    federation::until_ready(cluster, |_, _, _| {})?;

    narrator.step("The operator is scaled to zero; exchanges go on");
    operator::stop(cluster)?;
    let until = operator::serves_until(cluster, "ee")?;
    ensure!(!until.is_empty(), "the TrustAnchor does not say how long exchanges go on without the operator");
    let failed = federation::failures(cluster, BENEFITS, &person, 20)?;
    narrator.say(&format!("{} of 20 calls were served with no operator running", 20 - failed.len()));
    narrator.say(&format!("they would be until {until} ({})", remaining(&until)));
    ensure!(failed.is_empty(), "a call without the operator was not served: {failed:?}");
    let killed = POPULATION.kill_one(cluster, Duration::from_secs(150))?;
    let text = format!("a gateway started without it, in place of {}, after {}", killed.pod, seconds(killed.took));
    narrator.say(&text);

    narrator.step("The operator is back");
    operator::start(cluster)?;
    federation::until_ready(cluster, |_, _, _| {})?;
    narrator.show(&format!("$ kubectl get saatkond -A\n{}", cluster.kubectl(&["get", "saatkond", "-A"])?));

    narrator.step("Yours to try");
    narrator.show(&to_try(region, &person));
    Ok(())
}

fn tell_call(narrator: &Narrator, caller: Caller, path: &str, answer: &Answer) {
    narrator.show(&format!("{}$ {}", caller.namespace, federation::curl(caller, path)));
    narrator.show(&format!("HTTP {}", answer.status));
    for (name, value) in answer.xroad_headers() {
        narrator.show(&format!("{name}: {value}"));
    }
    narrator.show(&answer.body);
}

fn to_try(region: &Region, person: &str) -> String {
    let exec = format!("kubectl -n {} exec deploy/{} --", BENEFITS.namespace, BENEFITS.app);
    // A cluster that existed before is nobody's here to end. The operator goes last: it lets the objects go.
    let end = if region.is_external() {
        format!("kubectl delete -f examples/federation/ && helm uninstall saatkond --namespace {}", install::NAMESPACE)
    } else {
        "make regions-down".to_owned()
    };
    format!(
        "export PATH=$PWD/target/tools/bin:$PATH KUBECONFIG={}\n\
         kubectl get saatkond -A -o wide\n\
         kubectl saatkond status -A\n\
         {exec} {}\n\
         kubectl -n population-register edit member population-register   # give the police the right, call again\n\
         kubectl describe trustanchor ee\n\
         {end}",
        region.kubeconfig().display(),
        federation::curl(BENEFITS, person),
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn remaining(until: &str) -> String {
    match until.parse::<Timestamp>() {
        Ok(time) => {
            let left: SignedDuration = time.duration_since(Timestamp::now());
            format!("{} h {} min from now", left.as_hours(), left.as_mins() % 60)
        }
        Err(_) => "unknown".to_owned(),
    }
}
