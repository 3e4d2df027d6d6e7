//! One data plane in this process for all inputs, a connection each.
#![no_main]

#[path = "../../tests/http2/any_bytes.rs"]
mod any_bytes;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::cell::OnceCell;

use support::{Api, Backend, Gateway};
use tidegate_plan::Limits;

thread_local! {
    static GATEWAY: OnceCell<(Backend, Gateway)> = const { OnceCell::new() };
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| GATEWAY.with(|gateway| {
    let (_, gateway) = gateway.get_or_init(|| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::with_http2(tidegate_rt::DriverChoice::Epoll, Limits::default());
        gateway.deploy(Api::proxy(backend.address));
        (backend, gateway)
    });
    any_bytes::hold(gateway, data);
}));
