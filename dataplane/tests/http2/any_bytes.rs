//! A whole connection on any bytes: replays the corpus of the fuzz target `http2_connection`, which includes this file's
//! `hold`.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::support::Gateway;
use tidegate_harness::http2::PREFACE;

/// What must hold whatever a client sends behind its preface: the connection ends when the client's side does, without a
/// panic.
pub(crate) fn hold(gateway: &Gateway, data: &[u8]) {
    let mut stream = gateway.connect().stream;
    // The gateway may have heard enough before the end.
    let _ = stream
        .write_all(&[PREFACE, data].concat())
        .and_then(|()| stream.shutdown(Shutdown::Write));
    let mut bytes = [0; 16 * 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection does not end: {error}"),
        }
    }
    assert_eq!(gateway.node().telemetry().node().status().panics_total, 0);
}

#[cfg(test)]
mod tests {
    use super::super::support::{Api, Backend, limits, on_both_drivers};
    use super::*;

    /// Every committed input still holds, cut within its last hundred bytes too, and the gateway serves on.
    #[test]
    fn the_corpus_holds() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/http2_connection");
        on_both_drivers(|driver| {
            let backend = Backend::echoing();
            let mut gateway = Gateway::with_http2(driver, limits(&[]));
            gateway.deploy(Api::proxy(backend.address));
            let mut count = 0;
            for entry in std::fs::read_dir(&corpus).unwrap() {
                let data = std::fs::read(entry.unwrap().path()).unwrap();
                for end in (data.len().saturating_sub(100)..=data.len()).rev().step_by(9) {
                    hold(&gateway, &data[..end]);
                }
                count += 1;
            }
            assert!(count > 0, "no corpus");
            assert_eq!(gateway.get("/test/a").status, 200);
        });
    }
}
