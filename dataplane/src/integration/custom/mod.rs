//! Types `HTTP` and `MOCK` with mappings and templates: the request is taken whole and reshaped, a backend is called or
//! played, one of the integration responses is chosen, and the answer is reshaped on its way out (VTL-001).
//!
//! Request validation has come before. A proxied method passes none of this.

mod request;
mod response;
mod scope;

use std::rc::Rc;

use tidegate_plan::custom::{Backend, Custom, mock_status};
use tidegate_rt as rt;
use tidegate_rt::Chunk;

use super::http;
use crate::http::ResponseHead;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::pipeline::{After, body, gateway_response};
use crate::shard::{Client, LocalStage};

/// What a backend has answered.
struct Reply {
    /// What selection patterns are matched against.
    told: String,
    /// The answer's head; a mock has none.
    head: Option<ResponseHead>,
    /// The answer's body.
    body: Chunk,
}

/// Serves one request.
pub(super) async fn call(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &Rc<LocalStage>,
    custom: &Custom,
) -> After {
    if let Err(gone) = body::take(x, client).await {
        return gateway_response::client_gone(x, client, gone);
    }
    let request = match request::make(x, client, custom) {
        Ok(request) => request,
        Err(failure) => return gateway_response::answer(x, client, failure),
    };
    let reply = match &custom.backend {
        Backend::Mock => match mock(custom, &request.body) {
            Ok(reply) => reply,
            Err(failure) => return gateway_response::answer(x, client, failure),
        },
        Backend::Http(backend) => {
            x.body = Some(request.body.clone());
            if let Some(test) = &client.test {
                test.note_request_body(&request.body);
            }
            let begun = rt::now();
            match http::fetch(x, client, stage, backend, &request.prepared).await {
                Ok((head, body)) => {
                    if let Some(test) = &client.test {
                        test.note_answer_body(&body);
                    }
                    Reply {
                        told: head.status().to_string(),
                        head: Some(head),
                        body,
                    }
                }
                Err(ended) => return http::end(x, client, begun, ended),
            }
        }
    };
    match response::make(x, client, custom, &reply, request) {
        Ok(mut answer) => {
            answer.compress(x).await;
            answer.send(x, client)
        }
        Err(failure) => gateway_response::answer(x, client, failure),
    }
}

/// Plays the backend that a mock has not (INT-060 to INT-068).
fn mock(custom: &Custom, rendered: &[u8]) -> Result<Reply, Failure> {
    let told = if custom.templates.is_empty() {
        // INT-067: what names no status has the default response.
        String::new()
    } else {
        let status = std::str::from_utf8(rendered).ok().and_then(mock_status);
        // INT-O09.
        status.ok_or(Failure::CONFIGURATION)?.to_string()
    };
    Ok(Reply {
        told,
        head: None,
        body: Chunk::default(),
    })
}
