//! `kubectl saatkond`: admit namespaces, replace the authority, revoke certificates, show what is and what is not, and why.
//!
//! One module a verb. A verb reads with the rights of whoever calls it, decides in pure functions, and writes nothing
//! but what its help says.

mod admit;
mod cluster;
mod exclude;
mod output;
mod place;
mod revoke;
mod rotate;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks after a federation declared in Kubernetes.
///
/// Exit codes: 0 done, and all is as declared; 1 the cluster refused, or something is not as declared; 2 wrong use,
/// or the cluster could not be asked.
#[derive(Parser)]
#[command(name = "kubectl-saatkond", bin_name = "kubectl saatkond", version)]
struct Cli {
    /// The kubeconfig's context to use instead of its current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Let the operator work in a namespace, and say which member the namespace may be
    Admit(admit::Arguments),
    /// Replace the authority of a trust anchor, take that back, or show who would hold it up
    Rotate(rotate::Arguments),
    /// Let a change of the authority go on without a process that does not run any more
    Exclude(exclude::Arguments),
    /// Revoke the certificates of a security server whose keys somebody else may have
    Revoke(revoke::Arguments),
    /// Show trust anchors, members and security servers as a tree, with what does not hold and why
    Status(status::Arguments),
}

/// What a verb found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Exit code 0.
    AsDeclared,
    /// Exit code 1.
    NotAsDeclared,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(Outcome::AsDeclared) => ExitCode::SUCCESS,
        Ok(Outcome::NotAsDeclared) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", cluster::chain(&error));
            ExitCode::from(if cluster::is_refusal(&error) { 1 } else { 2 })
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let cluster = cluster::connect(cli.context).await?;
    match cli.verb {
        Verb::Admit(arguments) => admit::run(&cluster, arguments).await,
        Verb::Rotate(arguments) => rotate::run(&cluster, arguments).await,
        Verb::Exclude(arguments) => exclude::run(&cluster, arguments).await,
        Verb::Revoke(arguments) => revoke::run(&cluster, arguments).await,
        Verb::Status(arguments) => status::run(&cluster, arguments).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_verb_states_the_rights_it_needs() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Rights needed:"), "{} does not:\n{help}", verb.get_name());
        }
    }
}
