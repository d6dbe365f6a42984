//! `kubectl saatkond status`: what is, as a tree, and what is not, with the reason.

mod report;
mod tree;

use anyhow::Context;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use saatkond_api::{Member, SecurityServer, TrustAnchor};

use crate::Outcome;
use crate::cluster::{Cluster, api_status};

/// Shows trust anchors, members and security servers as a tree, with what does not hold and why.
///
/// Three requests, however large the federation. Exits with 1 if anything is not Ready.
#[derive(clap::Args)]
#[command(after_long_help = RIGHTS)]
pub struct Arguments {
    /// Look into this namespace instead of the context's.
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Look into all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// For programs: json or yaml. Fields may be added in later versions, none is taken away in v1alpha1.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<crate::output::Format>,
}

const RIGHTS: &str = "\
Rights needed:
  list           members.saatkond.io, securityservers.saatkond.io in the namespace (with -A: in all)
  list           trustanchors.saatkond.io; without it anchors are shown by name only";

/// Carries the verb out.
pub async fn run(cluster: &Cluster, arguments: Arguments) -> anyhow::Result<Outcome> {
    let client = &cluster.client;
    let everything = ListParams::default();
    let anchors: Option<Vec<TrustAnchor>> = match Api::all(client.clone()).list(&everything).await {
        Ok(list) => Some(list.items),
        Err(error) if api_status(&error).is_some_and(|(code, _)| code == 403) => None,
        Err(error) => return Err(error).context("failed to list trust anchors (are Saatkond's CRDs installed?)"),
    };
    let namespace = arguments.namespace.as_deref().unwrap_or(&cluster.namespace);
    let (members, servers): (Api<Member>, Api<SecurityServer>) = if arguments.all_namespaces {
        (Api::all(client.clone()), Api::all(client.clone()))
    } else {
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace))
    };
    let members = members.list(&everything).await.context("failed to list members")?.items;
    let servers = servers.list(&everything).await.context("failed to list security servers")?.items;

    let report = report::build(anchors.as_deref(), &members, &servers);
    let words = |report: &report::Report| tree::render(report, Timestamp::now());
    print!("{}", crate::output::written(&report, arguments.output, words)?);
    Ok(if report.is_ready() { Outcome::AsDeclared } else { Outcome::NotAsDeclared })
}
