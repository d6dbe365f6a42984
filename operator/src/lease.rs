//! One writer at a time: leader election on a Lease.
//!
//! A Lease counts as expired when *this process* has seen it unchanged for its whole duration by its own monotonic
//! clock: the times written in it are for people, so no clock skew between replicas matters. The holder counts from
//! before it sent its last successful renewal and gives up well before the others may take over; giving up *drops* the
//! writer, so nothing of it runs on beside the next one, and closes the fence of the client, so that a process that was
//! frozen and wakes too late writes nothing more. Where even that is not enough (a request that was under way), names and
//! preconditions of the writes themselves hold: CA Secrets are created, documents carry a resourceVersion.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

use crate::client::Fence;
use crate::clock::{Chance, Clock};

/// How the election runs.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// The Lease's name.
    pub name: String,
    /// Who we are: unique among the processes that compete.
    pub identity: String,
    /// How long an unchanged Lease keeps others away.
    pub duration: Duration,
    /// When the holder gives up, counted from before its last successful renewal. Shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often the holder renews and the others look.
    pub retry: Duration,
}

/// What to do about the Lease.
#[derive(Debug, Clone, PartialEq)]
enum Move {
    /// There is none.
    Create,
    /// It is free: ours from now on, if nobody is faster.
    Take(Box<Lease>),
    /// It is ours.
    Renew(Box<Lease>),
    /// It is held by this other one.
    Wait(String),
}

/// What was seen of the Lease, and since when.
#[derive(Debug, Default)]
struct Sightings {
    last: Option<(String, Duration)>,
}

impl Sightings {
    /// Decides from what is seen now.
    fn decide(&mut self, lease: Option<Lease>, identity: &str, now: Duration) -> Move {
        let Some(lease) = lease else { return Move::Create };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.last {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.last = Some((version, since));
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder == identity {
            return Move::Renew(Box::new(lease));
        }
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let duration = Duration::from_secs(seconds.unwrap_or(0));
        if holder.is_empty() || now.saturating_sub(since) >= duration {
            Move::Take(Box::new(lease))
        } else {
            Move::Wait(holder)
        }
    }
}

/// One process in the election.
pub struct Election {
    api: Api<Lease>,
    settings: LeaseSettings,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    fence: Fence,
    sightings: Sightings,
    /// When the last renewal that succeeded was sent.
    held_since: Duration,
}

/// Why [`Election::lead`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The Lease was lost; the writer has been dropped.
    Lost,
    /// The writer returned by itself, or was asked to stop; the Lease has been released.
    Finished,
}

impl Election {
    /// Takes part in the election of the Lease in `api`'s namespace.
    pub fn new(
        api: Api<Lease>,
        settings: LeaseSettings,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        fence: Fence,
    ) -> Self {
        Self { api, settings, clock, chance, fence, sightings: Sightings::default(), held_since: Duration::ZERO }
    }

    /// Waits for the Lease, runs the writer while it is held, and says how that ended. `None`: stopped before it led.
    ///
    /// The writer gets `stop` through its own ways: while it winds down the Lease is still renewed, and released last.
    pub async fn lead<W: Future<Output = ()>>(
        &mut self,
        stop: &CancellationToken,
        writer: impl FnOnce() -> W,
    ) -> Option<Ended> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = self.acquire() => {}
        }
        tracing::info!(lease = self.settings.name, identity = self.settings.identity, "leading");
        let ended = {
            let mut writer = pin!(writer());
            tokio::select! {
                // Asked first, so that a process that wakes from being frozen finds out before its writer goes on.
                biased;
                () = self.hold() => Ended::Lost,
                () = &mut writer => Ended::Finished,
            }
        };
        self.fence.close();
        match ended {
            Ended::Finished => self.release().await,
            Ended::Lost => tracing::warn!(lease = self.settings.name, "the lease is lost, the writer was dropped"),
        }
        Some(ended)
    }

    async fn acquire(&mut self) {
        loop {
            match self.step().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(error = %error, "the lease could not be taken"),
            }
            // Spread out, or two that start together take turns in conflicts.
            let spread = u32::try_from(self.chance.number() % 1000).unwrap_or(0);
            self.clock.pause(self.settings.retry + self.settings.retry * spread / 5000).await;
        }
    }

    /// Renews until that has not succeeded for the renew deadline, or somebody else holds it.
    async fn hold(&mut self) {
        loop {
            let left = (self.held_since + self.settings.renew_deadline).saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                return;
            }
            self.clock.pause(self.settings.retry.min(left)).await;
            let left = (self.held_since + self.settings.renew_deadline).saturating_sub(self.clock.elapsed());
            let deadline = self.clock.pause(left);
            tokio::select! {
                // A renewal that hangs must not outlive the deadline.
                () = deadline => return,
                renewed = self.step() => match renewed {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::warn!(error = %error, "the lease could not be renewed yet"),
                },
            }
        }
    }

    /// One look and at most one write; whether the Lease is ours now. A conflict or a Lease that is gone is looked at
    /// again next time.
    async fn step(&mut self) -> Result<bool, Box<kube::Error>> {
        let lease = self.api.get_opt(&self.settings.name).await.map_err(Box::new)?;
        let sent = self.clock.elapsed();
        let written = match self.sightings.decide(lease, &self.settings.identity, sent) {
            Move::Wait(_) => return Ok(false),
            Move::Create => {
                let lease = Lease {
                    metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
                    spec: Some(self.spec(None, true)),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
            Move::Take(mut lease) => {
                lease.spec = Some(self.spec(lease.spec.as_ref(), true));
                self.api.replace(&self.settings.name, &PostParams::default(), &lease).await
            }
            Move::Renew(mut lease) => {
                lease.spec = Some(self.spec(lease.spec.as_ref(), false));
                self.api.replace(&self.settings.name, &PostParams::default(), &lease).await
            }
        };
        written.map_err(Box::new)?;
        self.held_since = sent;
        self.fence.open_until(sent + self.settings.renew_deadline);
        Ok(true)
    }

    fn spec(&self, before: Option<&LeaseSpec>, taken: bool) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if taken { Some(now.clone()) } else { before.and_then(|spec| spec.acquire_time.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if taken && before.is_some() {
                transitions.saturating_add(1)
            } else {
                transitions
            }),
            ..LeaseSpec::default()
        }
    }

    /// Lets the next one in at once instead of after the whole duration. A failure costs only that time.
    async fn release(&mut self) {
        let lease = match self.api.get(&self.settings.name).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::warn!(error = %error, "the lease could not be released");
                return;
            }
        };
        let ours = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.settings.identity);
        if !ours {
            return;
        }
        let mut lease = lease;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        if let Err(error) = self.api.replace(&self.settings.name, &PostParams::default(), &lease).await {
            tracing::warn!(error = %error, "the lease could not be released");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(version: &str, holder: Option<&str>, renewed: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(renewed.parse().unwrap())),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_foreign_lease_expires_by_our_own_clock_alone() {
        // The holder's clock is a year behind or ahead: it changes nothing.
        for renewed in ["2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"] {
            let mut seen = Sightings::default();
            let held = || Some(lease("1", Some("other"), renewed));
            assert_eq!(seen.decide(held(), "me", s(100)), Move::Wait("other".into()), "never seen before");
            assert_eq!(seen.decide(held(), "me", s(114)), Move::Wait("other".into()));
            assert!(matches!(seen.decide(held(), "me", s(115)), Move::Take(_)), "unchanged for its duration");
        }
    }

    #[test]
    fn a_renewal_starts_the_count_again() {
        let mut seen = Sightings::default();
        let at = "2026-01-01T00:00:00Z";
        seen.decide(Some(lease("1", Some("other"), at)), "me", s(0));
        assert_eq!(seen.decide(Some(lease("2", Some("other"), at)), "me", s(14)), Move::Wait("other".into()));
        assert_eq!(seen.decide(Some(lease("2", Some("other"), at)), "me", s(28)), Move::Wait("other".into()));
        assert!(matches!(seen.decide(Some(lease("2", Some("other"), at)), "me", s(29)), Move::Take(_)));
    }

    #[test]
    fn a_released_lease_is_taken_and_ones_own_is_renewed_at_once() {
        let mut seen = Sightings::default();
        let at = "2026-01-01T00:00:00Z";
        assert_eq!(seen.decide(None, "me", s(0)), Move::Create);
        assert!(matches!(seen.decide(Some(lease("1", None, at)), "me", s(0)), Move::Take(_)));
        assert!(matches!(seen.decide(Some(lease("2", Some(""), at)), "me", s(0)), Move::Take(_)));
        assert!(matches!(seen.decide(Some(lease("3", Some("me"), at)), "me", s(0)), Move::Renew(_)));
    }
}
