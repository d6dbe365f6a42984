//! `footprint`: how small the image and the controller are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use flate2::{Compression, write::GzEncoder};
use saatkond_testbed::Layout;
use saatkond_xtask::estonia;
use serde_json::json;

use super::controller::{Controller, api_server, writes};
use super::federation_size::{apply, client, until_ready};
use super::view::View;
use super::{Goal, Sheet, faker, proc};

/// What is measured.
pub const GOALS: &[Goal] = &[
    Goal { metric: "image_mb", unit: "MB", target: Some("<= 20") },
    Goal { metric: "rss_0_mib", unit: "MiB", target: Some("<= 20") },
    Goal { metric: "rss_1000_mib", unit: "MiB", target: Some("<= 40") },
];

/// Objects of ours that `rss_1000_mib` is measured with; their namespaces and what admits them come on top.
const OBJECTS: usize = 1000;
/// Beyond this the run has failed.
const BOUND: Duration = Duration::from_mins(10);

/// Runs it.
pub async fn run(layout: &Layout, sheet: &mut Sheet) -> anyhow::Result<()> {
    let bytes = compressed(layout)?;
    sheet.note("image_mb", bytes / 1e6, json!({"compression": "gzip, level 6"}))?;

    let server = api_server(layout)?;
    let client = client(server.cluster()).await?;
    let controller = Controller::start(layout, server.cluster())?;
    let runs = settled(&controller).await?;
    sheet.note("rss_0_mib", last(&runs), json!({"samples": runs}))?;

    let stop = Arc::new(AtomicBool::new(false));
    let view = Arc::new(View::open(&client).await?);
    let mut faking = tokio::spawn(faker::run(client.clone(), view.clone(), stop.clone()));
    let federation = estonia::enlarged(OBJECTS)?;
    let began = Instant::now();
    let objects = apply(&client, &federation).await?;
    // An object that is refused, or waits for something, takes less than one that works.
    let ready = until_ready(&view, objects, began, &mut faking).await;
    ready.with_context(|| format!("the log is {}", controller.log().display()))?;
    let runs = settled(&controller).await?;
    sheet.note("rss_1000_mib", last(&runs), json!({"objects": objects, "samples": runs}))?;
    stop.store(true, Ordering::Relaxed);
    faking.await.context("the faker panicked")??;
    Ok(())
}

/// Resident memory each second until the controller has written nothing for ten seconds.
async fn settled(controller: &Controller) -> anyhow::Result<Vec<f64>> {
    let (began, mut last, mut since, mut samples) = (Instant::now(), 0, Instant::now(), Vec::new());
    while since.elapsed() < Duration::from_secs(10) {
        let now = writes(&controller.requests()?);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        samples.push(proc::memory_mib(controller.pid(), "VmRSS")?);
        if began.elapsed() > BOUND {
            bail!("the controller still writes after {BOUND:?}; its log is {}", controller.log().display());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(samples)
}

fn last(samples: &[f64]) -> f64 {
    samples.last().copied().unwrap_or(f64::NAN)
}

/// What a registry would store of the image: the archive's layer, compressed.
fn compressed(layout: &Layout) -> anyhow::Result<f64> {
    let path = layout.root().join("target/images/saatkond.tar");
    let mut archive =
        std::fs::File::open(&path).with_context(|| format!("{} is not there: make image", path.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    std::io::copy(&mut archive, &mut encoder).context("failed to compress the image")?;
    let bytes = u32::try_from(encoder.finish()?.len()).context("the image is larger than 4 GB")?;
    Ok(f64::from(bytes))
}
