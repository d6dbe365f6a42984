//! `testbed`: starts and stops Kubernetes for tests, from the command line.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use saatkond_testbed::{
    ApiServer, ApiServerOptions, DEFAULT_REGIONS, Direction, Faults, KUBECONFIGS, Layout, Region, api_down,
    image::{self, ImageSpec},
};

/// Real Kubernetes for tests: an API server alone, or whole regions on one machine.
#[derive(Parser)]
#[command(name = "testbed")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Says whether regions can run on this machine, and what is missing
    Preflight,
    /// Starts regions (home, lux and fin unless named) and waits until they are ready; with SAATKOND_REGION_KUBECONFIGS
    /// set, looks whether the clusters that it names answer
    Up { regions: Vec<String> },
    /// Ends regions and removes everything they made; all, and the API servers, unless named
    Down { regions: Vec<String> },
    /// Lists the regions that are up
    Status,
    /// Shows objects, events and logs of a region
    Dump { region: String },
    /// Lets nothing pass between two regions
    Partition {
        a: String,
        b: String,
        /// Only what A sends to B
        #[arg(long)]
        one_way: bool,
    },
    /// Holds back every packet between two regions, each way
    Delay { a: String, b: String, milliseconds: u64 },
    /// Loses packets between two regions, each way
    Loss { a: String, b: String, percent: f64 },
    /// Ends all faults
    Heal,
    /// Builds and loads container images
    Image {
        #[command(subcommand)]
        command: ImageVerb,
    },
    /// Writes a kubeconfig with the rights of a ServiceAccount
    AccountKubeconfig { region: String, namespace: String, account: String, path: PathBuf },
    /// The API-server tier
    Api {
        #[command(subcommand)]
        command: ApiVerb,
    },
    #[command(hide = true, about = "Holds the servers of the API-server tier (started by it, not by hand)")]
    ApiSupervisor {
        folder: PathBuf,
        #[arg(long, default_value_t = 0)]
        linger: u64,
    },
    #[command(hide = true, about = "Holds a region (started by `up`, not by hand)")]
    RegionKeeper { region: String },
    #[command(hide = true, about = "Process 1 of a region (started by its keeper, not by hand)")]
    RegionInit { region: String },
    #[command(hide = true, about = "A slow cable between two regions (started by `delay`, not by hand)")]
    Wire { pair: String, milliseconds: u64 },
    #[command(hide = true, about = "What test pods run: an HTTP server of one file, and a client")]
    Probe {
        #[command(subcommand)]
        command: ProbeVerb,
    },
    #[command(hide = true, about = "Runs a program that ends with its parent (used between fork and exec)")]
    Tied {
        #[arg(long)]
        parent: i32,
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ImageVerb {
    /// Makes a docker-archive of one layer from a static binary
    Build {
        /// The program; it becomes /NAME-OF-THE-FILE in the image
        #[arg(long)]
        binary: PathBuf,
        /// Name and tag
        #[arg(long)]
        name: String,
        /// First arguments; the program alone unless given
        #[arg(long, value_delimiter = ',')]
        entrypoint: Vec<String>,
        /// Further files, as /path/in/image=file
        #[arg(long)]
        file: Vec<String>,
        /// User and group
        #[arg(long, default_value = "65532:65532")]
        user: String,
        /// The archive to write
        #[arg(long)]
        output: PathBuf,
    },
    /// Makes the image of a docker-archive known to regions (all that are up unless named)
    Load {
        archive: PathBuf,
        #[arg(long)]
        region: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ProbeVerb {
    /// Writes TEXT to FILE and answers every request with what is in FILE
    Serve { port: u16, file: PathBuf, text: String },
    /// Prints what HOST:PORT answers, or fails within three seconds
    Fetch { address: String },
}

#[derive(Subcommand)]
enum ApiVerb {
    /// Starts the shared API server and keeps it until a line is read or the input ends
    Run {
        /// With the controllers of kube-controller-manager that make deleting real
        #[arg(long)]
        with_controllers: bool,
        /// A further flag of kube-apiserver; servers with other flags are other servers
        #[arg(long, allow_hyphen_values = true)]
        flag: Vec<String>,
    },
    /// Ends every API server of this checkout
    Down,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The library's errors name their cause themselves; a backtrace would say nothing to who starts a region.
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Verb) -> anyhow::Result<()> {
    let layout = Layout::find();
    let started = Instant::now();
    match command {
        Verb::Preflight => run_preflight(&layout)?,
        Verb::Up { regions } => {
            let usual = || DEFAULT_REGIONS.map(str::to_owned).to_vec();
            let names = if regions.is_empty() { Region::external()?.unwrap_or_else(usual) } else { regions };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for region in Region::up_all(&names)? {
                println!("{}\t{}", region.name(), layout.regions().join(region.name()).join("kubeconfig").display());
            }
            eprintln!("testbed: {} regions ready in {:.1} s", names.len(), started.elapsed().as_secs_f64());
        }
        Verb::Down { regions } => run_down(&layout, &regions)?,
        Verb::Status => {
            for region in Region::list(&layout)? {
                let address = if region.is_external() { "external".to_owned() } else { region.address()?.to_string() };
                println!("{}\t{address}\t{}", region.name(), region.kubeconfig().display());
            }
        }
        Verb::Dump { region } => println!("{}", Region::open(&layout, &region)?.dump()),
        Verb::Partition { a, b, one_way } => {
            let direction = if one_way { Direction::OneWay } else { Direction::Both };
            Faults::default().partition(&a, &b, direction)?;
        }
        Verb::Delay { a, b, milliseconds } => Faults::default().delay(&a, &b, Duration::from_millis(milliseconds))?,
        Verb::Loss { a, b, percent } => Faults::default().loss(&a, &b, percent)?,
        Verb::Heal => Faults::default().heal()?,
        Verb::Image { command } => run_image(&layout, command)?,
        Verb::AccountKubeconfig { region, namespace, account, path } => {
            Region::open(&layout, &region)?.cluster().service_account_kubeconfig(&namespace, &account, &path)?;
        }
        Verb::Api { command: ApiVerb::Run { with_controllers, flag } } => {
            let server = ApiServer::shared(&ApiServerOptions { with_controllers, api_server_flags: flag })?;
            println!("export KUBECONFIG={}", server.kubeconfig().display());
            std::io::stdin().read_line(&mut String::new())?;
        }
        Verb::Api { command: ApiVerb::Down } => api_down(&layout)?,
        Verb::ApiSupervisor { folder, linger } => {
            saatkond_testbed::supervise_api_server(&folder, Duration::from_secs(linger))?;
        }
        Verb::RegionKeeper { region } => saatkond_testbed::run_keeper(&region)?,
        Verb::RegionInit { region } => saatkond_testbed::run_init(&region)?,
        Verb::Wire { pair, milliseconds } => saatkond_testbed::wire(&pair, milliseconds)?,
        Verb::Probe { command: ProbeVerb::Serve { port, file, text } } => {
            saatkond_testbed::probe::serve(port, &file, &text)?;
        }
        Verb::Probe { command: ProbeVerb::Fetch { address } } => {
            println!("{}", saatkond_testbed::probe::fetch(&address)?);
        }
        Verb::Tied { parent, program, arguments } => saatkond_testbed::tied(parent, &program, &arguments)?,
    }
    Ok(())
}

fn run_preflight(layout: &Layout) -> anyhow::Result<()> {
    if Region::external()?.is_none() {
        saatkond_testbed::preflight(layout)?;
        println!("regions can run on this machine");
        return Ok(());
    }
    for region in Region::list(layout)? {
        println!("{} answers: {}", region.name(), region.kubeconfig().display());
    }
    println!("no region is started here, as {KUBECONFIGS} is set");
    Ok(())
}

fn run_down(layout: &Layout, regions: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    if regions.is_empty() {
        Region::down_all(layout)?;
        api_down(layout)?;
    } else {
        regions.iter().try_for_each(|name| Region::down_in(layout, name))?;
    }
    // Who calls this expects regions to be gone.
    if let Some(names) = Region::external()? {
        let names = names.join(", ");
        eprintln!("testbed: {KUBECONFIGS} is set. Left as they are: {names}, and regions of this checkout");
    } else if regions.is_empty() {
        eprintln!("testbed: all is down in {:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

fn run_image(layout: &Layout, command: ImageVerb) -> anyhow::Result<()> {
    match command {
        ImageVerb::Build { binary, name, entrypoint, file, user, output } => {
            let program = binary.file_name().context("--binary has no file name")?.to_string_lossy().into_owned();
            let program = format!("/{program}");
            let mut files = BTreeMap::from([(program.clone(), binary)]);
            for entry in file {
                let (inside, outside) = entry.split_once('=').context("--file is not /path/in/image=file")?;
                files.insert(inside.to_owned(), PathBuf::from(outside));
            }
            let entrypoint = if entrypoint.is_empty() { vec![program] } else { entrypoint };
            let built = image::build(&ImageSpec { name, files, entrypoint, user, ..ImageSpec::default() }, &output)?;
            println!("{}\tcompressed_bytes={}\tbytes={}", built.archive.display(), built.compressed_bytes, built.bytes);
        }
        ImageVerb::Load { archive, region } => {
            let regions = if region.is_empty() {
                Region::list(layout)?
            } else {
                region.iter().map(|name| Region::open(layout, name)).collect::<Result<_, _>>()?
            };
            anyhow::ensure!(!regions.is_empty(), "no region is up");
            for region in regions {
                region.load_image(&archive)?;
            }
        }
    }
    Ok(())
}
