//! The life of a request, in order. This page is the order; each phase stands in the file of its name.
//!
//! ```text
//! head read -> framing -> host, path, stage -> resource, method -> throttle -> body -> integration -> finish
//!              [frame]    [locate]            [route]             [throttle] [coding, validate] crate::integration
//!                 \___________________________\___________________\____________\_____\__> [gateway_response]
//! ```
//!
//! A phase is a function over one [`Exchange`]. It refuses with a [`Failure`], or lets the request go on. Nothing
//! before the body waits: admission of a request is one run through plain code. A body is waited for where it is encoded, or
//! where a model describes it, and else by the integration.

pub mod body;
pub mod coding;
pub mod context;
pub mod exchange;
mod explain;
pub mod failure;
mod finish;
mod frame;
pub mod gateway_response;
pub mod ids;
mod locate;
pub mod response;
mod route;
pub mod test_invoke;
mod throttle;
mod validate;

use std::rc::Rc;

use tidegate_rt as rt;

use tidegate_proto::config::v1::{ProbeResult, probe::Mode};

use crate::config::ProbeCall;
use crate::http::RequestHead;
use crate::integration;
use crate::shard::{Client, Shard};
use exchange::Exchange;
use failure::Failure;
use validate::Refused;

/// What becomes of the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It carries the next request.
    Next,
    /// It ends when everything has been sent.
    Close,
    /// It ends so that a client that is still sending reads the answer first.
    Linger,
    /// It ends when everything has been sent, within a response that is not whole.
    Truncated,
    /// It ends at once, and visibly not in order.
    Reset,
}

/// Runs a command of the control plane: explains a request, or makes one.
pub fn command(shard: &Rc<Shard>, call: ProbeCall) {
    match call.probe.mode() {
        Mode::Explain => explain::explain(shard, call),
        Mode::TestInvoke => test_invoke::test_invoke(shard, call),
        Mode::TestAuthorizer | Mode::Unspecified => {
            let result = ProbeResult {
                id: call.probe.id.clone(),
                error: "this version of the node cannot test authorizers: it has none".to_owned(),
                ..ProbeResult::default()
            };
            // The asker may have gone.
            let _ = call.reply.send(result);
        }
    }
}

/// Serves one request.
pub async fn serve(client: &mut Client, head: RequestHead) -> After {
    let mut x = Exchange::begin(client, &head, rt::now());
    client.shard.counters().in_flight.increment();
    let guard = InFlight(client.shard.clone());
    let after = match admit(&mut x, client) {
        Ok(()) if x.place.is_some_and(|place| place.checked) || coding::is_encoded(&x) => {
            // Boxed, as few requests have it and every request's state would hold it.
            match Box::pin(prepare(&mut x, client)).await {
                Ok(()) => integration::call(&mut x, client).await,
                Err(Refused::Failure(failure)) => gateway_response::answer(&mut x, client, failure),
                Err(Refused::Gone(gone)) => gateway_response::client_gone(&mut x, client, gone),
            }
        }
        Ok(()) => integration::call(&mut x, client).await,
        Err(failure) => gateway_response::answer(&mut x, client, failure),
    };
    drop(guard);
    finish::finish(&x, client);
    after
}

/// The phases that may need the body: it is decoded, then checked.
async fn prepare(x: &mut Exchange<'_>, client: &mut Client) -> Result<(), Refused> {
    if coding::is_encoded(x) {
        coding::decode(x, client).await?;
    }
    validate::validate(x, client).await
}

/// The phases that need nothing but the head.
fn admit(x: &mut Exchange<'_>, client: &mut Client) -> Result<(), Failure> {
    frame::frame(x, client)?;
    probe("frame", x, client);
    locate::locate(x, client)?;
    probe("locate", x, client);
    route::route(x, client)?;
    probe("route", x, client);
    throttle::throttle(x, &client.shard)?;
    probe("throttle", x, client);
    Ok(())
}

/// Answers something that is not a request, and ends the connection.
pub fn refuse(client: &mut Client, failure: Failure) -> After {
    gateway_response::refuse(client, failure);
    After::Linger
}

/// Counts a request as in flight for as long as it lives, a panic included.
struct InFlight(Rc<Shard>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counters().in_flight.decrement();
    }
}

/// Where tests make a phase panic (decision D7): on a node started with fault injection, a request that carries
/// `x-tidegate-test-panic: {phase}` panics at the end of that phase.
pub(crate) fn probe(phase: &str, x: &Exchange<'_>, client: &Client) {
    if client.shard.fault_injection
        && x.head.fields().get_by_name(b"x-tidegate-test-panic") == Some(phase.as_bytes())
    {
        panic!("injected into phase {phase}");
    }
}
