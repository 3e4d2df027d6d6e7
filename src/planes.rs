//! The sub-commands that run one plane in this process.

use std::path::Path;

use anyhow::{Context, bail};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use tidegate_plan::Limits;

use crate::{
    cli::{ControlPlaneArgs, DataPlaneArgs, GlobalArgs},
    output,
    settings::{Flags, Settings},
};

/// `tidegate controlplane`.
pub(crate) fn control(global: &GlobalArgs, args: &ControlPlaneArgs) -> anyhow::Result<()> {
    let _settings = Settings::load(global, Flags::from(args))?;
    bail!("this build has no control plane")
}

/// `tidegate dataplane`.
pub(crate) fn data(global: &GlobalArgs, args: &DataPlaneArgs) -> anyhow::Result<()> {
    let _settings = Settings::load(global, Flags::from(args))?;
    bail!("this build has no data plane")
}

/// `tidegate limits`: the table with the values in force.
pub(crate) fn limits(global: &GlobalArgs) -> anyhow::Result<()> {
    let settings = Settings::load(global, Flags::default())?;
    let limits = settings.limits()?;
    let value: Vec<_> = Limits::table()
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name,
                "value": limits.get(row.limit),
                "default": row.default,
                "minimum": row.minimum,
                "maximum": row.maximum,
                "bounds": row.doc,
                "over": row.over,
            })
        })
        .collect();
    output::print(global.output, &value, || {
        let mut table = output::table(["NAME", "VALUE", "DEFAULT", "BOUNDS", "OVER IT"]);
        for row in Limits::table() {
            let (value, default) = (row.unit.show(limits.get(row.limit)), row.unit.show(row.default));
            table.add_row([row.name, &value, &default, row.doc, row.over]);
        }
        table
    })
}

/// Ends this process when the one that started it ends, however that happens.
pub(crate) fn end_with(supervisor: Option<u32>) -> anyhow::Result<()> {
    let Some(supervisor) = supervisor else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask to end with the supervisor")?;
    // It may have ended before we asked.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != i32::try_from(supervisor).ok() {
        bail!("the supervisor (process {supervisor}) is gone");
    }
    Ok(())
}

/// `tidegate restore`.
pub(crate) fn restore(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    bail!(
        "this build cannot restore {} into {}",
        file.display(),
        settings.data_dir.display()
    )
}
