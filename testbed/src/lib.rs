//! Real Kubernetes for tests: an API server alone ([`ApiServer`]), or whole regions in network namespaces
//! ([`Region`]), with faults between them ([`Faults`]).
//!
//! `testbed/install.sh` installs what is started here; the `testbed` program (`cargo build -p saatkond-testbed`)
//! holds what has to outlive the process that asked for it. See `testbed/README.md`.

mod api_server;
mod cluster;
mod credentials;
mod error;
mod faults;
pub mod image;
mod layout;
mod leftovers;
mod preflight;
pub mod probe;
mod process;
mod region;
pub mod wait;

pub use api_server::{ApiServer, ApiServerOptions, api_down, supervise as supervise_api_server};
pub use cluster::Cluster;
pub use error::{Error, Result};
pub use faults::{Direction, Faults, wire};
pub use layout::Layout;
pub use leftovers::Leftovers;
pub use preflight::{ALTERNATIVE, preflight};
pub use process::{ProcessId, tied};
pub use region::{DEFAULT_REGIONS, KUBECONFIGS, LOADING, Region, run_init, run_keeper};
