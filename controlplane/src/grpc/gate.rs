//! Who calls is asked before what is asked.
//!
//! A message of a call may be as large as the bound of messages, and a connection has many calls. Without this, whoever
//! reaches the Admin API could have it hold all of them before it is noticed that he has no token.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use tidegate_proto::admin::v1::admin_service_server::AdminServiceServer;
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service as Serve, http},
    server::NamedService,
};

use super::{AdminFace, bearer, status};
use crate::service::Service;

/// The Admin API for those whose token is a principal's; the principal goes along in the request's extensions.
#[derive(Clone)]
pub(super) struct Gate {
    inner: AdminServiceServer<AdminFace>,
    service: Service,
}

impl Gate {
    pub(super) fn new(inner: AdminServiceServer<AdminFace>, service: Service) -> Self {
        Self { inner, service }
    }
}

impl NamedService for Gate {
    const NAME: &'static str = <AdminServiceServer<AdminFace> as NamedService>::NAME;
}

impl Serve<http::Request<Body>> for Gate {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Self { mut inner, service } = self.clone();
        Box::pin(async move {
            let header = request.headers().get("authorization");
            let token = header
                .and_then(|value| bearer(value.to_str().ok()?))
                .unwrap_or_default();
            match service.authenticate(token).await {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    inner.call(request).await
                }
                Err(refusal) => Ok(status(refusal).into_http()),
            }
        })
    }
}
