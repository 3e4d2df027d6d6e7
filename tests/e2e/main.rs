//! End to end: the real binary, real clients, real backends in processes of their own.
//!
//! Every test runs in the worlds it names: with io_uring, with epoll, and where seccomp refuses io_uring. Names read
//! `{world}::{suite}::{test}`. `cargo test --test e2e -- epoll::pets` runs a part; `cargo test --test e2e -- --ignored`
//! runs the slow ones (as `./test-slow` does). What a failed test leaves on disk is kept, and where is printed.

mod backends;
mod coding;
mod deploys;
mod framing;
mod functions;
mod gateway_responses;
mod hostile;
mod http2;
mod imports;
mod pets;
mod planes;
mod proxied;
mod smuggling;
mod spread;
mod test_invoke;
mod through;
mod tls;
mod told;
mod transform;
mod units;
mod upgrades;
mod validation;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tidegate_harness::suite::{Context, SharedInstances, Test, World};
use tidegate_harness::tools;

fn main() -> ExitCode {
    if let Some(code) = tidegate_harness::helper() {
        return code;
    }
    let shared = Arc::new(SharedInstances::default());
    let suites: &[(&str, &[Test])] = &[
        ("pets", pets::TESTS),
        ("backends", backends::TESTS),
        ("framing", framing::TESTS),
        ("functions", functions::TESTS),
        ("smuggling", smuggling::TESTS),
        ("hostile", hostile::TESTS),
        ("http2", http2::TESTS),
        ("planes", planes::TESTS),
        ("deploys", deploys::TESTS),
        ("imports", imports::TESTS),
        ("gateway_responses", gateway_responses::TESTS),
        ("coding", coding::TESTS),
        ("validation", validation::TESTS),
        ("transform", transform::TESTS),
        ("test_invoke", test_invoke::TESTS),
        ("tls", tls::TESTS),
        ("proxied", proxied::TESTS),
        ("told", told::TESTS),
        ("through", through::TESTS),
        ("upgrades", upgrades::TESTS),
        ("units", units::TESTS),
        ("spread", spread::TESTS),
    ];
    let mut trials = Vec::new();
    for (suite, tests) in suites {
        for test in *tests {
            for world in test.worlds {
                trials.push(trial(suite, *test, *world, shared.clone()));
            }
        }
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    shared.stop(conclusion.has_failed());
    conclusion.exit_code()
}

fn trial(suite: &str, test: Test, world: World, shared: Arc<SharedInstances>) -> Trial {
    let name = format!("{}::{suite}::{}", world.name(), test.name);
    let run = move || {
        let directory = tempfile::Builder::new()
            .prefix("tidegate-e2e-")
            .tempdir()
            .context("a directory for the test")?;
        let context = Context::new(
            env!("CARGO_BIN_EXE_tidegate").as_ref(),
            world,
            directory.path().to_owned(),
            shared,
        );
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (test.run)(&context))) {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(error)) => Err(Failed::from(match error.downcast_ref::<tools::Missing>() {
                Some(missing) => missing.to_string(),
                None => format!("{error:#}\nkept: {}", directory.keep().display()),
            })),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("a panic without a text");
                Err(Failed::from(format!(
                    "{text}\nkept: {}",
                    directory.keep().display()
                )))
            }
        }
    };
    Trial::ignorable_test(name, run).with_ignored_flag(test.slow)
}
