//! The sub-commands that run one plane in this process.

use std::path::Path;

use anyhow::bail;

use crate::{
    cli::{ControlPlaneArgs, DataPlaneArgs, GlobalArgs},
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

/// `tidegate limits`.
pub(crate) fn limits(global: &GlobalArgs) -> anyhow::Result<()> {
    let _settings = Settings::load(global, Flags::default())?;
    bail!("this build has no table of limits")
}

/// `tidegate restore`.
pub(crate) fn restore(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    bail!(
        "this build cannot restore {} into {}",
        file.display(),
        settings.data_dir.display()
    )
}
