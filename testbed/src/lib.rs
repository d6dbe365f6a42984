//! Real Kubernetes for tests: an API server alone ([`ApiServer`]), or whole regions in network namespaces
//! ([`Region`]), with faults between them ([`Faults`]).
//!
//! `testbed/install.sh` installs what is started here; the `testbed` program (`cargo build -p saatkond-testbed`)
//! holds what has to outlive the process that asked for it. See `testbed/README.md`.

mod api_server;
mod cluster;
mod credentials;
mod error;
pub mod image;
mod layout;
mod process;
pub mod wait;

pub use api_server::{ApiServer, ApiServerOptions, api_down, supervise as supervise_api_server};
pub use cluster::Cluster;
pub use error::{Error, Result};
pub use layout::Layout;
pub use process::{ProcessId, tied};
