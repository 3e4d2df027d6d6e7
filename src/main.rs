//! The `tidegate` binary: both planes and the command line.

mod cli;
mod client;
mod commands;
mod demo;
mod instance;
mod logging;
mod output;
mod planes;
mod settings;
mod supervise;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and exit code 2.
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
