//! The example's information system: a register of generated persons in PostgreSQL, over HTTP.
//!
//! It knows nothing of Saatkond: it is what a member runs behind its security server.

mod generate;
mod http;
mod person;
mod store;

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A register of generated persons in PostgreSQL, over HTTP.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Host of the database.
    #[arg(long, env = "DATABASE_HOST", default_value = "localhost")]
    database_host: String,
    /// Port of the database.
    #[arg(long, env = "DATABASE_PORT", default_value_t = 5432)]
    database_port: u16,
    /// Name of the database.
    #[arg(long, env = "DATABASE_NAME", default_value = "population")]
    database_name: String,
    /// User of the database.
    #[arg(long, env = "DATABASE_USER", default_value = "population")]
    database_user: String,
    /// How many persons to fill an empty register with.
    #[arg(long, env = "PERSONS", default_value_t = 10_000)]
    persons: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    // From the environment alone: every process of the machine can read arguments.
    let password = std::env::var("DATABASE_PASSWORD").unwrap_or_default();
    let mut database = tokio_postgres::Config::new();
    database
        .host(&arguments.database_host)
        .port(arguments.database_port)
        .dbname(&arguments.database_name)
        .user(&arguments.database_user)
        .password(&password)
        .application_name("person-register")
        .connect_timeout(std::time::Duration::from_secs(5));

    let store = store::Store::default();
    tokio::spawn(store.clone().stay_connected(database, arguments.persons));

    let listener = tokio::net::TcpListener::bind(arguments.listen).await.context("failed to listen")?;
    tracing::info!(address = %arguments.listen, "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    axum::serve(listener, http::router(store)).with_graceful_shutdown(stop).await.context("failed to serve")
}
