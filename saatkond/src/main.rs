//! The one binary: saatkond operator, gateway and crds. Arguments, wiring and signals; no logic.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What a federation is made of are hundreds of thousands of short texts, and the documents about it are megabytes that come
/// and go: glibc's allocator takes a header for each and gives little back. The chart sets it up for the controller, which shall be
/// small; gateways keep its other defaults, which are fast.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Federated data exchange and data embassies on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "saatkond", version)]
struct Command {
    /// How logs are written.
    #[arg(long, global = true, env = "SAATKOND_LOG_FORMAT", value_enum, default_value = "json")]
    log_format: LogFormat,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Text,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Runs the operator: the controller or the link.
    Operator(Box<saatkond_operator::settings::Settings>),
    /// Runs a security server's gateway.
    Gateway(Box<saatkond_gateway::settings::Settings>),
    /// Prints the CustomResourceDefinitions as YAML.
    Crds,
}

/// 0: ended as asked. 1: failed while running. 2: wrong arguments (clap's own).
fn main() -> ExitCode {
    let command = Command::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` prints the whole chain.
            tracing::error!(error = format!("{error:#}"), "saatkond ends");
            eprintln!("saatkond: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let Command { log_format, part } = command;
    if matches!(part, Part::Crds) {
        return print_crds();
    }
    log(log_format);
    // One TLS provider in the process, whichever library asks for the default.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start tokio")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        match part {
            Part::Operator(settings) => {
                Box::pin(saatkond_operator::run::run(*settings, stop)).await.context("the operator failed")
            }
            Part::Gateway(settings) => {
                saatkond_gateway::run_until(*settings, stop.cancelled_owned()).await.context("the gateway failed")
            }
            Part::Crds => Ok(()),
        }
    })
}

fn print_crds() -> anyhow::Result<()> {
    let crds = saatkond_api::crds::all().context("failed to build the CustomResourceDefinitions")?;
    let text = saatkond_api::crds::to_yaml(&crds).context("failed to print the CustomResourceDefinitions")?;
    std::io::stdout().write_all(text.as_bytes()).context("failed to print")
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.init(),
    }
}

/// The first SIGTERM or SIGINT asks for an orderly end, the second ends at once.
fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("asked to end");
        stop.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(())
}
