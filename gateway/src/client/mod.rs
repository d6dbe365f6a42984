//! The port of the member's information systems: plain HTTP/1.1, X-Road's r1 under `/r1/`.

pub mod answer;
pub mod call;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use saatkond_wire::configuration::ErrorProfile;
use saatkond_wire::exchange::Fault;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::accept;
use crate::context::Context;
use crate::error::{self, Form, Side};
use crate::http1::head::{Head, Refusal};
use crate::http1::serve::{self, Answer, AnswerBody, Ending, Handler, RequestBody, Timeouts};
use crate::memory::Hold;
use crate::metrics::{ExchangeLabels, ReasonLabel};
use crate::request::headers::{Line, names};
use crate::request::target;

/// X-Road's initial idle time is 30 s; between requests a caller may keep its connection longer.
pub const TIMEOUTS: Timeouts = Timeouts {
    head: Duration::from_secs(30),
    idle: Duration::from_secs(75),
    body: Duration::from_mins(1),
    write: Duration::from_mins(1),
};

/// Accepts until it is closing; calls under way are left to end.
pub async fn listen(context: Arc<Context>, listener: TcpListener, tasks: TaskTracker, ending: Ending) {
    let permits = Arc::new(Semaphore::new(context.capacity.callers));
    loop {
        // Beyond the bound callers wait in the kernel's queue.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Some(stream) = accept::next(&listener, "client", &ending.closing).await else { return };
        let (context, ending) = (context.clone(), ending.clone());
        tasks.spawn(async move {
            let _ = stream.set_nodelay(true);
            serve::connection(stream, &Port(context), TIMEOUTS, &ending).await;
            drop(permit);
        });
    }
}

struct Port(Arc<Context>);

impl Handler for Port {
    async fn handle(&self, head: Head, body: RequestBody) -> Answer {
        let context = &self.0;
        if target::is_r1(&head.path) {
            let started = Instant::now();
            let _under_way = context.metrics.under_way(Side::Client);
            let accept: Vec<Line> = head.lines.iter().filter(|line| line.is("Accept")).cloned().collect();
            return match call::call(context, head, body, started).await {
                Ok(answer) => answer,
                Err(failure) => {
                    let in_force = context.state.current();
                    let profile = in_force.map_or(ErrorProfile::default(), |in_force| in_force.profile());
                    let fault = context.fault(&failure, profile);
                    context.metrics.ended(Side::Client, failure.label(), started.elapsed());
                    fault_answer(&fault, error::status(&fault), &accept)
                }
            };
        }
        elsewhere(&head)
    }

    fn hold(&self) -> Hold {
        self.0.held.hold()
    }

    fn abandoned(&self) {
        self.0
            .metrics
            .exchanges
            .get_or_create(&ExchangeLabels { side: Side::Client.label(), outcome: "caller_gone" })
            .inc();
        debug!("a caller hung up before it had an answer");
    }

    fn refused(&self, refusal: Refusal) {
        self.0.metrics.http_refused.get_or_create(&ReasonLabel { reason: refusal.why }).inc();
        debug!(why = refusal.why, "a request was refused by the HTTP layer");
    }
}

/// What is not r1.
fn elsewhere(head: &Head) -> Answer {
    let text = |status, body: &'static str| Answer {
        status,
        lines: vec![Line::new("Content-Type", "text/plain;charset=utf-8")],
        body: AnswerBody::Whole(body.into()),
    };
    match (head.method.as_str(), head.path.as_str()) {
        // Old liveness probes of X-Road installations ask this.
        ("GET" | "HEAD", "/") => text(StatusCode::OK, "Saatkond security server\n"),
        // X-Road answers these in plain text, also when there is nothing to give.
        ("GET", "/asic" | "/verificationconf") => {
            text(StatusCode::NOT_FOUND, "This security server does not offer signed documents for download yet\n")
        }
        _ => {
            let fault = Fault {
                kind: "client.invalid_request".into(),
                message: "There is nothing at this path: a service is called at /r1/…".into(),
                detail: uuid::Uuid::new_v4().to_string(),
            };
            let accept: Vec<Line> = head.lines.iter().filter(|line| line.is("Accept")).cloned().collect();
            fault_answer(&fault, StatusCode::NOT_FOUND, &accept)
        }
    }
}

/// An own error in the form that the caller accepts. None of the `x-road-*` headers goes with it.
fn fault_answer(fault: &Fault, status: StatusCode, accept: &[Line]) -> Answer {
    let form = Form::by_accept(accept.iter().map(|line| line.value.as_ref()));
    let lines =
        vec![Line::new("Content-Type", form.content_type()), Line::new(names::ERROR, error::header_value(fault))];
    Answer { status, lines, body: AnswerBody::Whole(form.body(fault).into()) }
}
