//! `cargo xtask`: generates what is committed and generated, checks that it is fresh, and makes large examples.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use saatkond_xtask::{estonia, examples, generated};

#[derive(Parser)]
#[command(name = "xtask", about = "Generators of this repository")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Writes crds/, the chart's CRDs and docs/reference/.
    Gen,
    /// Says what `gen` would change and which example the API server would refuse; exits 1 if anything.
    Check,
    /// Writes a federation of Estonia's size as YAML, one file a namespace.
    EstoniaSize {
        /// The folder to write to; made if it is not there.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    let root = generated::repository_root();
    match Arguments::parse().verb {
        Verb::Gen => {
            for path in generated::write(&root, &generated::all()?)? {
                println!("wrote {}", path.display());
            }
        }
        Verb::Check => {
            let mut wrong: Vec<String> = generated::stale(&root, &generated::all()?)?
                .into_iter()
                .map(|path| format!("{} is stale: run `cargo xtask gen`", path.display()))
                .collect();
            wrong.extend(examples::check(&root.join("examples"))?);
            for line in &wrong {
                eprintln!("{line}");
            }
            if !wrong.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Verb::EstoniaSize { out } => {
            let federation = estonia::federation()?;
            let files = federation.write(&out)?;
            println!(
                "wrote {files} files to {}: {} members, {} servers",
                out.display(),
                federation.members.len(),
                federation.servers.len()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
