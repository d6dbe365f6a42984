//! The register's table in PostgreSQL.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::civil::Date;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::generate;
use crate::person::{Person, Residence, Sex};

/// Why the register gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection to the database now.
    #[error("the database is not connected")]
    NotConnected,
    /// The database refused or the connection broke.
    #[error("the database did not answer the query")]
    Database(#[from] tokio_postgres::Error),
    /// A row holds what this program never writes.
    #[error("a row of the database is malformed")]
    Malformed,
}

/// The register. Clones share one connection, which pipelines their queries.
#[derive(Clone, Default)]
pub struct Store {
    client: Arc<RwLock<Option<Arc<Client>>>>,
}

/// Which persons to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exactly this surname.
    pub surname: Option<String>,
    /// Only codes above this one: the last of the page before.
    pub after: String,
    /// At most so many.
    pub limit: i64,
}

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS persons (
        personal_code char(11) PRIMARY KEY,
        given_name text NOT NULL,
        surname text NOT NULL,
        date_of_birth text NOT NULL,
        county text NOT NULL,
        municipality text NOT NULL
    );
    CREATE INDEX IF NOT EXISTS persons_surname ON persons (surname, personal_code);";
const COLUMNS: &str = "personal_code, given_name, surname, date_of_birth, county, municipality";
/// Any fixed number: replicas that start together take turns.
const FILL_LOCK: i64 = 0x5AA7_C04D;

impl Store {
    /// Keeps a connection to the database for ever; fills an empty register with `count` persons at the first.
    pub async fn stay_connected(self, config: Config, count: usize) {
        let pauses = || {
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(200))
                .with_max_delay(Duration::from_secs(5))
                .without_max_times()
                .with_jitter()
                .build()
        };
        let mut pause = pauses();
        loop {
            match self.connect_once(&config, count).await {
                Ok(()) => {
                    tracing::warn!("the database closed the connection");
                    pause = pauses();
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no database"),
            }
            self.set(None);
            tokio::time::sleep(pause.next().unwrap_or(Duration::from_secs(5))).await;
        }
    }

    async fn connect_once(&self, config: &Config, count: usize) -> Result<(), tokio_postgres::Error> {
        let (mut client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        fill(&mut client, count).await?;
        self.set(Some(Arc::new(client)));
        tracing::info!(persons = count, "connected");
        // An error of the task itself is a panic or a cancellation: the connection has ended either way.
        connection.await.unwrap_or(Ok(()))
    }

    fn set(&self, client: Option<Arc<Client>>) {
        // A poisoned lock still holds a whole value: only whole values are ever stored.
        *self.client.write().unwrap_or_else(std::sync::PoisonError::into_inner) = client;
    }

    fn client(&self) -> Result<Arc<Client>, StoreError> {
        let client = self.client.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        client.clone().ok_or(StoreError::NotConnected)
    }

    /// Whether queries can be answered now.
    pub async fn is_ready(&self) -> bool {
        match self.client() {
            Ok(client) => client.simple_query("").await.is_ok(),
            Err(_) => false,
        }
    }

    /// The person with this code.
    pub async fn person(&self, code: &str) -> Result<Option<Person>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM persons WHERE personal_code = $1");
        let row = self.client()?.query_opt(&query, &[&code]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The persons of a filter, by ascending code.
    pub async fn persons(&self, filter: &Filter) -> Result<Vec<Person>, StoreError> {
        let query = format!(
            "SELECT {COLUMNS} FROM persons WHERE ($1::text IS NULL OR surname = $1) AND personal_code > $2 \
             ORDER BY personal_code LIMIT $3"
        );
        let rows = self.client()?.query(&query, &[&filter.surname, &filter.after, &filter.limit]).await?;
        rows.iter().map(read).collect()
    }
}

async fn fill(client: &mut Client, count: usize) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&FILL_LOCK]).await?;
    transaction.batch_execute(TABLE).await?;
    let some = transaction.query_opt("SELECT 1 FROM persons LIMIT 1", &[]).await?.is_some();
    if !some {
        let insert = format!(
            "INSERT INTO persons ({COLUMNS}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])"
        );
        let persons = generate::persons(count);
        let column = |of: fn(&Person) -> String| persons.iter().map(of).collect::<Vec<_>>();
        transaction
            .execute(
                &insert,
                &[
                    &column(|p| p.personal_code.to_string()),
                    &column(|p| p.given_name.clone()),
                    &column(|p| p.surname.clone()),
                    &column(|p| p.date_of_birth.to_string()),
                    &column(|p| p.residence.county.clone()),
                    &column(|p| p.residence.municipality.clone()),
                ],
            )
            .await?;
        tracing::info!(persons = count, "filled the empty register");
    }
    transaction.commit().await
}

fn read(row: &Row) -> Result<Person, StoreError> {
    let text = |at: usize| row.try_get::<_, String>(at);
    let personal_code: crate::person::PersonalCode = text(0)?.parse().map_err(|_| StoreError::Malformed)?;
    let sex: Sex = personal_code.sex();
    let date_of_birth: Date = text(3)?.parse().map_err(|_| StoreError::Malformed)?;
    Ok(Person {
        personal_code,
        given_name: text(1)?,
        surname: text(2)?,
        sex,
        date_of_birth,
        residence: Residence { county: text(4)?, municipality: text(5)? },
    })
}
