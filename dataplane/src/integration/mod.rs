//! What answers a method, one file a kind.

mod content;
mod custom;
mod headers;
mod http;
mod lambda;
mod mock;
mod prepared;
pub mod query;
mod recoded;
mod relay;
mod request;
mod through;

use tidegate_plan::Integration;

use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::pipeline::{After, gateway_response, probe};
use crate::shard::Client;

/// Has the method's integration answer an admitted request.
pub async fn call(x: &mut Exchange<'_>, client: &mut Client) -> After {
    let Some(stage) = x.stage.clone() else {
        return gateway_response::answer(x, client, Failure::FORBIDDEN);
    };
    let method = x.place.and_then(|place| {
        stage
            .plan(x.canary)
            .routes()
            .get(place.route as usize)?
            .methods()
            .get(place.method as usize)
    });
    let Some(method) = method else {
        return gateway_response::answer(x, client, Failure::MISSING_AUTHENTICATION_TOKEN);
    };
    probe("integration", x, client);
    match &method.integration {
        // Apart, as it needs far more than a plain one and few routes have it.
        Integration::HttpProxy(backend) if let Some(pass) = backend.pass_through() => {
            Box::pin(through::call(x, client, &stage, backend, pass)).await
        }
        // What reads the body, or passes several values on, has its parameters made first.
        Integration::HttpProxy(backend) if backend.is_rich() => {
            Box::pin(http::call_prepared(x, client, &stage, backend)).await
        }
        Integration::HttpProxy(backend) => http::call(x, client, &stage, backend, http::Kind::Proxy).await,
        Integration::Http(backend) => http::call(x, client, &stage, backend, http::Kind::Custom).await,
        // Apart for the same reason.
        Integration::Custom(custom) => Box::pin(custom::call(x, client, &stage, custom)).await,
        Integration::Mock(mock) => mock::answer(x, client, mock).await,
        // Boxed, as it needs far more than a plain one and every request's state would hold it.
        Integration::LambdaProxy(lambda) => Box::pin(lambda::call(x, client, lambda)).await,
        Integration::Broken(reason) => {
            tracing::debug!(api = %stage.shared.plan.api, %reason, "a method that cannot work was called");
            gateway_response::answer(x, client, Failure::CONFIGURATION)
        }
    }
}
