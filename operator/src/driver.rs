//! Runs the queue: takes whose turn it is, many side by side, and plans the next turn of each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::error::{Error, chain};
use crate::queue::{Outcome, Queue};
use crate::world::Key;
use crate::{member, security_server, trust_anchor};

/// What a reconcile says: when to look again at the latest.
pub type Reconciled = Result<Option<Timestamp>, Error>;

/// One reconcile under way.
type Turn = Pin<Box<dyn Future<Output = (Key, Outcome)> + Send>>;

/// The longest that an object is not looked at: a floor under everything that watches might have missed.
const LONGEST: Duration = Duration::from_hours(1);

/// Runs until `stop`, then lets the reconciles under way end.
pub async fn run(context: Arc<Context>, mut wakes: UnboundedReceiver<Key>, stop: CancellationToken) {
    let mut queue = Queue::new(context.pace.backoff);
    // Not spawned: they live and die with this future, which the loss of the lease drops.
    let mut turns: FuturesUnordered<Turn> = FuturesUnordered::new();
    let mut stopping = false;
    loop {
        let now = context.clock.elapsed();
        while !stopping && turns.len() < context.pace.concurrency {
            let Some(key) = queue.take(now) else { break };
            let context = context.clone();
            turns.push(Box::pin(async move {
                let outcome = turn(&context, &key).await;
                (key, outcome)
            }));
        }
        if stopping && turns.is_empty() {
            return;
        }
        context.metrics.queue_depth.set(i64::try_from(queue.depth(now)).unwrap_or(i64::MAX));
        let free = !stopping && turns.len() < context.pace.concurrency;
        // With no turn to give there is still something to say: how many wait for one.
        let next = if free { queue.next_due() } else { queue.next_after(now) };
        let wait = next.map(|due| due.saturating_sub(now));
        let due = async {
            match wait {
                Some(wait) => context.clock.pause(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled(), if !stopping => stopping = true,
            Some((key, outcome)) = turns.next(), if !turns.is_empty() => {
                queue.done(&key, outcome, context.clock.elapsed(), context.chance.number());
            }
            Some(key) = wakes.recv(), if !stopping => {
                plan(&mut queue, &context, key);
                // A list wakes thousands at once: one round for all of them.
                while let Ok(key) = wakes.try_recv() {
                    plan(&mut queue, &context, key);
                }
            }
            () = due => {}
        }
    }
}

fn plan(queue: &mut Queue<Key>, context: &Context, key: Key) {
    let debounce = match key {
        Key::TrustAnchor(_) => context.pace.anchor_debounce,
        Key::Member(..) | Key::SecurityServer(..) => context.pace.debounce,
    };
    queue.plan(key, context.clock.elapsed() + debounce);
}

async fn turn(context: &Arc<Context>, key: &Key) -> Outcome {
    let started = context.clock.elapsed();
    let over = context.clock.pause(context.pace.reconcile_timeout);
    let result = tokio::select! {
        result = reconcile(context, key) => result,
        () = over => Err(Error::TimedOut { after: context.pace.reconcile_timeout }),
    };
    let seconds = context.clock.elapsed().saturating_sub(started).as_secs_f64();
    let (outcome, word) = match result {
        Ok(next) => {
            let next = next.map_or(LONGEST, |next| until(next, context.clock.now()));
            (Outcome::Done(Some(next.min(LONGEST))), "ok")
        }
        Err(error) if error.is_unreachable() => {
            tracing::info!(object = %key, error = chain(&error), "the API server does not answer");
            (Outcome::Unreachable, "unreachable")
        }
        Err(error) if error.is_conflict() => {
            tracing::debug!(object = %key, error = chain(&error), "something changed meanwhile: looking again");
            (Outcome::Failed, "conflict")
        }
        Err(error @ Error::Contested { .. }) => {
            tracing::warn!(object = %key, error = chain(&error), "somebody else changes what is written");
            (Outcome::Contested, "contested")
        }
        Err(error) => {
            if let (true, Some(namespace)) = (error.is_forbidden(), key.namespace()) {
                // The binding may be gone while the watch that it allowed is still open: look again whether the
                // namespace is admitted. A namespace that is being deleted loses its binding like that.
                let _ = context.doubts.send(namespace.to_owned());
            }
            tracing::warn!(object = %key, error = chain(&error), "the reconcile failed");
            (Outcome::Failed, "failed")
        }
    };
    context.metrics.reconciled(key.kind(), word, seconds);
    outcome
}

async fn reconcile(context: &Arc<Context>, key: &Key) -> Reconciled {
    match key {
        Key::TrustAnchor(name) => trust_anchor::reconcile(context, name).await,
        Key::Member(namespace, name) => member::reconcile(context, namespace, name).await,
        Key::SecurityServer(namespace, name) => security_server::reconcile(context, namespace, name).await,
    }
}

/// The earlier of what the plan says and `within`, where something is waited for that no watch shows.
#[must_use]
pub fn sooner(planned: Timestamp, now: Timestamp, waiting: bool, within: SignedDuration) -> Timestamp {
    let soon = now.checked_add(within).unwrap_or(planned);
    if waiting { planned.min(soon) } else { planned }
}

/// Time until then. A little more than nothing, so that a deadline that has just come does not spin.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default().max(Duration::from_millis(200))
}
