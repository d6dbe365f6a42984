//! `make bench NAME=...`: measures, writes `target/bench/NAME.jsonl`, and fails where a target is missed.

use std::process::ExitCode;

use clap::Parser;
use saatkond_bench::{Sheet, federation_size, footprint, gateway_pair};
use saatkond_testbed::Layout;

/// Measures one benchmark.
#[derive(Parser)]
struct Arguments {
    /// Which.
    name: Name,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    FederationSize,
    GatewayPair,
    Footprint,
}

#[tokio::main]
async fn main() -> ExitCode {
    let layout = Layout::find();
    let (name, goals) = match Arguments::parse().name {
        Name::FederationSize => ("federation-size", federation_size::GOALS),
        Name::GatewayPair => ("gateway-pair", gateway_pair::GOALS),
        Name::Footprint => ("footprint", footprint::GOALS),
    };
    let mut sheet = Sheet::new(goals);
    let result = match name {
        "federation-size" => until_interrupted(federation_size::run(&layout, &mut sheet)).await,
        "gateway-pair" => gateway_pair::run(&layout, &mut sheet),
        _ => until_interrupted(footprint::run(&layout, &mut sheet)).await,
    };
    if let Err(error) = &result {
        eprintln!("bench {name}: {error:#}");
    }
    // What was measured before a failure is worth keeping; the verdict says what is missing.
    match sheet.finish(layout.root(), name) {
        Ok(verdict) => {
            println!("{verdict}");
            if result.is_ok() && verdict.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("bench {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What it has started ends with it, also on Ctrl-C: an operator that is left behind asks a server that is gone for ever.
async fn until_interrupted(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        ended = run => ended,
        asked = tokio::signal::ctrl_c() => {
            asked?;
            anyhow::bail!("interrupted")
        }
    }
}
