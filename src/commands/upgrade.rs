//! `upgrade`: asks whoever starts data planes here for a new one, and waits for what comes of it.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tidegate_dataplane::handover::Status;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{GlobalArgs, UpgradeArgs},
    output,
    settings::{Flags, Settings},
};

/// `tidegate upgrade`.
pub(crate) async fn run(global: &GlobalArgs, args: &UpgradeArgs) -> anyhow::Result<()> {
    let data_dir = Settings::load(global, Flags::default())?.data_dir;
    let before = Status::read(&data_dir)?;
    before.ask(&data_dir)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        sleep(LOOK).await;
        let after = Status::read(&data_dir)?;
        if after.ended != before.ended {
            return report(global, &before, &after);
        }
        if !before.is_alive() && !after.is_alive() {
            bail!(
                "process {} ended in the middle of the upgrade; its log says why",
                before.pid
            );
        }
        if Instant::now() >= deadline {
            bail!(
                "nothing has come of the upgrade in {} s; the log of process {} says how far it is",
                args.timeout,
                before.pid
            );
        }
    }
}

fn report(global: &GlobalArgs, before: &Status, after: &Status) -> anyhow::Result<()> {
    if let Some(failure) = &after.failure {
        bail!(
            "{failure}; the data plane that ran goes on (process {})",
            after.data_plane
        );
    }
    let value = json!({
        "from": before.data_plane,
        "to": after.data_plane,
        "version": after.version,
    });
    output::print(global.output, &value, || {
        let mut table = output::table(["FROM", "TO", "VERSION"]);
        table.add_row([
            before.data_plane.to_string(),
            after.data_plane.to_string(),
            after.version.clone(),
        ]);
        table
    })
}

/// Between two looks at what came of it.
const LOOK: Duration = Duration::from_millis(20);
