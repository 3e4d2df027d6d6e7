//! What each sub-command does. Results go to standard output, everything else to standard error.

mod apply;
mod backup;
mod entity;
mod function;
mod import;
mod nodes;
mod test_invoke;
mod upgrade;
mod worker;

pub(crate) use import::import_document;

use std::{future::Future, process::ExitCode};

use anyhow::Context;
use clap::CommandFactory;

use crate::{
    cli::{Cli, Command, FunctionCommand, GlobalArgs, NodeCommand, PrincipalCommand},
    demo, logging, planes, supervise,
};

/// Runs the sub-command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    match command {
        Command::Up(args) => supervise::up(&global, &args)?,
        Command::Demo(args) => demo::run(&global, &args)?,
        Command::ControlPlane(args) => planes::control(&global, &args)?,
        Command::DataPlane(args) => planes::data(&global, &args)?,
        Command::DemoBackend(args) => demo::backend(&global, &args)?,
        Command::Completions(args) => {
            clap_complete::generate(
                args.shell,
                &mut Cli::command(),
                "tidegate",
                &mut std::io::stdout(),
            );
        }
        Command::Upgrade(args) => client(&global, upgrade::run(&global, &args))?,
        Command::Limits => planes::limits(&global)?,
        Command::Restore(args) => backup::restore(&global, &args)?,
        Command::Import(args) => client(&global, import::import(&global, &args))?,
        Command::Deploy(args) => client(&global, import::deploy(&global, &args))?,
        Command::Apply(args) => client(&global, apply::apply(&global, &args))?,
        Command::Diff(args) => return client(&global, apply::diff(&global, &args)),
        Command::Get(args) => client(&global, entity::get(&global, &args))?,
        Command::List(args) => client(&global, entity::list(&global, &args))?,
        Command::Delete(args) => client(&global, entity::delete(&global, &args))?,
        Command::Bind(args) => client(&global, entity::bind(&global, &args))?,
        Command::Function(FunctionCommand::Put(args)) => client(&global, function::put(&global, &args))?,
        Command::Function(FunctionCommand::List) => client(&global, function::list(&global))?,
        Command::Function(FunctionCommand::Delete(args)) => {
            client(&global, function::delete(&global, &args))?
        }
        Command::Worker(args) => client(&global, worker::run(&global, &args))?,
        Command::Nodes => client(&global, nodes::list(&global))?,
        Command::Node(NodeCommand::Token(args)) => client(&global, nodes::token(&global, &args))?,
        Command::Node(NodeCommand::Remove(args)) => client(&global, nodes::remove(&global, &args))?,
        Command::TestInvoke(args) => client(&global, test_invoke::test_invoke(&global, &args))?,
        Command::Wait(args) => return client(&global, nodes::wait(&global, &args)),
        Command::Explain(args) => client(&global, nodes::explain(&global, &args))?,
        Command::Ca => client(&global, nodes::authority(&global))?,
        Command::Principal(PrincipalCommand::Create(args)) => {
            client(&global, nodes::create_principal(&global, &args))?;
        }
        Command::Backup(args) => client(&global, backup::backup(&global, &args))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that talks to an Admin API.
fn client<T>(global: &GlobalArgs, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    logging::start(
        global.log.as_deref(),
        global.log_format.map(|format| format.name()),
        "warn",
    )?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// Reads a file, or standard input for `-`, of at most `limit` bytes.
fn read_input(file: &std::path::Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(limit + 1).read_to_end(&mut content)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(limit + 1).read_to_end(&mut content))
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if content.len() as u64 > limit {
        anyhow::bail!(
            "{} is larger than {} MiB, the most that is taken",
            file.display(),
            limit >> 20
        );
    }
    Ok(content)
}
