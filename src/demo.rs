//! `tidegate demo`.

use anyhow::bail;

use crate::cli::{DemoArgs, DemoBackendArgs, GlobalArgs};

/// `tidegate demo`.
pub(crate) fn run(_global: &GlobalArgs, _args: &DemoArgs) -> anyhow::Result<()> {
    bail!("this build has no demo")
}

/// `tidegate demo-backend`.
pub(crate) fn backend(_global: &GlobalArgs, _args: &DemoBackendArgs) -> anyhow::Result<()> {
    bail!("this build has no demo")
}
