//! The forms in which a verb says what it has found.

use serde::Serialize;

/// A form for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Json,
    Yaml,
}

/// The finding in the form that was asked for, or in words.
pub fn written<T: Serialize>(
    found: &T,
    format: Option<Format>,
    words: impl Fn(&T) -> String,
) -> anyhow::Result<String> {
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(found)?),
        Some(Format::Yaml) => serde_saphyr::to_string(found)?,
        None => words(found),
    })
}
