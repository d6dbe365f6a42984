//! `make rotate-under-load`: authorities are replaced under calls, and the last line says what came of it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use saatkond_testbed::Layout;
use saatkond_under_load::outcome::Demands;
use saatkond_under_load::scene::{Settings, run};

/// Replaces the authority of a federation again and again, under calls and faults. Takes region home, and takes it down again if it
/// was not there.
#[derive(Debug, Parser)]
struct Arguments {
    /// Changes of the authority, at least.
    #[arg(long, default_value_t = 3)]
    rotations: u64,
    /// Calls, at least: changes go on until so many were made.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Ends of the controller, at least.
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// Of the order of faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Broken off after so many minutes.
    #[arg(long, default_value_t = 90)]
    minutes: u64,
}

fn main() -> ExitCode {
    let Arguments { rotations, requests, kills, seed, minutes } = Arguments::parse();
    let settings =
        Settings { rotations, requests, ways: 3, is_rough: true, seed, bound: Duration::from_secs(minutes * 60) };
    let outcome = match run(&Layout::find(), settings) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("rotate-under-load: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    for failure in &outcome.failures {
        eprintln!("{failure}");
    }
    let short = outcome.short_of(Demands { requests, rotations, kills });
    for short in &short {
        eprintln!("rotate-under-load: {short}");
    }
    println!("{outcome}");
    if short.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
