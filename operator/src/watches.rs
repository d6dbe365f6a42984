//! Following objects: one watch turned into a store, with what is pending shown in the readiness.
//!
//! A watch says three things here: this is everything there is, this object is there now, this object is gone. A list
//! after a gap (410, a lost connection) is the whole truth again, so nothing that went meanwhile is kept.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::StreamExt as _;
use kube::Resource;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};
use serde::de::DeserializeOwned;

use crate::health::Readiness;

/// What a watch says.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<K> {
    /// This is everything there is.
    All(Vec<K>),
    /// This is there now.
    There(K),
    /// This is gone.
    Gone(K),
}

/// Why a watch does not run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The API server refuses it.
    Forbidden,
    /// The API server does not know the kind.
    Unknown,
    /// Anything else; it is tried again.
    Other,
}

/// How watches are opened.
#[derive(Debug, Clone, Copy)]
pub struct WatchSettings {
    /// After how many seconds the server ends a watch; one that says nothing for 5 s longer is broken and opened anew.
    pub timeout: u32,
    /// Objects in one answer of a list.
    pub page: u32,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self { timeout: 290, page: 100 }
    }
}

impl WatchSettings {
    /// The settings of a watch, with a label selector or without.
    #[must_use]
    pub fn config(self, labels: Option<&str>) -> watcher::Config {
        let config = watcher::Config::default().timeout(self.timeout).page_size(self.page);
        match labels {
            Some(labels) => config.labels(labels),
            None => config,
        }
    }
}

/// Follows objects until the returned future is dropped. `on` hears each change; `trouble` hears why a watch does not run.
pub async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut on: impl FnMut(Change<K>),
    mut trouble: impl FnMut(Option<(Trouble, String)>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = Vec::new();
    // At most 10 s apart: this is also how a namespace that is admitted later is noticed.
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(300))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter();
    let mut stream = pin!(watcher(api, config).backoff(ExponentialBackoff::from(backoff)));
    while let Some(event) = stream.next().await {
        let event = event.map(|event| event.modify(lighten));
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => {
                on(Change::All(std::mem::take(&mut listed)));
                trouble(None);
            }
            Ok(Event::Apply(object)) => on(Change::There(object)),
            Ok(Event::Delete(object)) => on(Change::Gone(object)),
            Err(error) => trouble(Some(classify(&error))),
        }
    }
}

/// Drops what is never looked at and is most of an object: who set which field, and the object once more as it was applied
/// with `kubectl apply`.
pub fn lighten<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Shows in `readiness` whether the watch of `what` runs.
pub fn shown<'a>(readiness: &'a Readiness, what: &'a str) -> impl FnMut(Option<(Trouble, String)>) + 'a {
    move |trouble| match trouble {
        None => readiness.done(what),
        Some((kind, text)) => {
            // A watch that has run and is opened anew is no reason to take the process out of service.
            if kind == Trouble::Other {
                tracing::debug!(what, error = text, "the watch broke and is opened anew");
            } else {
                tracing::warn!(what, error = text, "the watch does not run");
                readiness.pending(what, text);
            }
        }
    }
}

fn classify(error: &watcher::Error) -> (Trouble, String) {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return (Trouble::Other, error.to_string());
    };
    if status.is_forbidden() {
        (Trouble::Forbidden, format!("not allowed: {}", status.message))
    } else if status.is_not_found() {
        (Trouble::Unknown, "the API server does not know this kind: is its CustomResourceDefinition installed?".into())
    } else {
        (Trouble::Other, status.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_missing_kind_and_a_missing_right_are_named() {
        let failed = |code: u16, reason: &str| {
            let status = Status { code, reason: reason.into(), message: "m".into(), ..Status::default() };
            classify(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))).0
        };
        assert_eq!(failed(403, "Forbidden"), Trouble::Forbidden);
        assert_eq!(failed(404, "NotFound"), Trouble::Unknown);
        assert_eq!(failed(410, "Expired"), Trouble::Other);
        assert_eq!(classify(&watcher::Error::NoResourceVersion).0, Trouble::Other);
    }

    #[test]
    fn a_watch_that_is_opened_anew_does_not_end_readiness() {
        let readiness = Readiness::default();
        readiness.pending("members", "not listed yet");
        let mut show = shown(&readiness, "members");
        show(Some((Trouble::Other, "reset".into())));
        assert!(readiness.list().contains_key("members"), "not listed yet is still pending");
        show(None);
        show(Some((Trouble::Other, "reset".into())));
        assert!(readiness.list().is_empty());
        show(Some((Trouble::Unknown, "no CRD".into())));
        assert_eq!(readiness.list()["members"], "no CRD");
    }
}
