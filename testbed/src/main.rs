//! `testbed`: starts and stops Kubernetes for tests, from the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use saatkond_testbed::{ApiServer, ApiServerOptions, Layout};

/// Real Kubernetes for tests: an API server alone, or whole regions on one machine.
#[derive(Parser)]
#[command(name = "testbed")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The API-server tier
    Api {
        #[command(subcommand)]
        command: ApiVerb,
    },
    /// Holds the servers of the API-server tier (started by it, not by hand)
    #[command(hide = true)]
    ApiSupervisor {
        folder: PathBuf,
        #[arg(long, default_value_t = 0)]
        linger: u64,
    },
    /// Runs a program that ends with its parent (used between fork and exec, not by hand)
    #[command(hide = true)]
    Tied {
        #[arg(long)]
        parent: i32,
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ApiVerb {
    /// Starts the shared API server and keeps it until a line is read or the input ends
    Run {
        /// With the controllers of kube-controller-manager that make deleting real
        #[arg(long)]
        with_controllers: bool,
    },
    /// Ends every API server of this checkout
    Down,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Verb::Api { command: ApiVerb::Run { with_controllers } } => {
            let server = ApiServer::shared(&ApiServerOptions { with_controllers, ..ApiServerOptions::default() })?;
            println!("export KUBECONFIG={}", server.kubeconfig().display());
            std::io::stdin().read_line(&mut String::new())?;
        }
        Verb::Api { command: ApiVerb::Down } => saatkond_testbed::api_down(&Layout::find())?,
        Verb::ApiSupervisor { folder, linger } => {
            saatkond_testbed::supervise_api_server(&folder, Duration::from_secs(linger))?;
        }
        Verb::Tied { parent, program, arguments } => saatkond_testbed::tied(parent, &program, &arguments)?,
    }
    Ok(())
}
