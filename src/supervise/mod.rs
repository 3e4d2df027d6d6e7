//! `tidegate up`.

use anyhow::bail;

use crate::cli::{GlobalArgs, UpArgs};

/// `tidegate up`.
pub(crate) fn up(_global: &GlobalArgs, _args: &UpArgs) -> anyhow::Result<()> {
    bail!("this build has no planes to run")
}
