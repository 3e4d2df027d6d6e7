//! What the end-to-end tests stand on: real `tidegate` processes, a backend process that misbehaves on request, clients
//! that read and write raw bytes, and load that counts every failure.
//!
//! The suites are the root package's test target `e2e` (`tests/e2e/`), because cargo builds the binary for that package's
//! tests and tells them its path; this crate holds what they share. The test executable runs itself again for the two
//! other kinds of process that the suites need, a [`backend`] and a [`confine`]d start, so that nothing has to be built
//! or found beside it: call [`helper`] first in `main`.

pub mod backend;
pub mod confine;
pub mod definition;
pub mod http2;
pub mod instance;
pub mod load;
pub mod process;
pub mod rate;
pub mod raw;
pub mod suite;
pub mod tools;

use std::process::ExitCode;

/// The first argument that turns the test executable into a helper process.
const HELPER: &str = "--tidegate-test-helper";

/// Runs a helper process when this process was started as one; `None` in the test run itself.
pub fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != HELPER {
        return None;
    }
    let kind = arguments.next().unwrap_or_default();
    let rest: Vec<_> = arguments.collect();
    let result = match kind.to_str() {
        Some("backend") => backend::serve(&rest),
        Some("confine") => confine::exec(&rest),
        _ => Err(anyhow::anyhow!("unknown helper {kind:?}")),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}
