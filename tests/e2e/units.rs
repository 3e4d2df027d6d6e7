//! What stands in `deploy/`: the unit files as systemd reads them, the kernel settings as this kernel has them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::once("systemd_understands_the_units", systemd_understands_the_units),
    Test::once("the_kernel_knows_the_settings", the_kernel_knows_the_settings),
];

fn deploy(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(part)
}

/// `systemd-analyze verify` has nothing to say, and what a unit runs exists.
fn systemd_understands_the_units(context: &Context) -> Result<()> {
    let analyze = tools::find("systemd-analyze")?;
    let mut units = Vec::new();
    for entry in std::fs::read_dir(deploy("systemd"))? {
        let source = entry?.path();
        let text = std::fs::read_to_string(&source)?;
        // Verified where it is: the binary of this build stands for the installed one.
        let text = text.replace("/usr/local/bin/tidegate", &context.binary().display().to_string());
        let unit = context.directory().join(source.file_name().context("a name")?);
        std::fs::write(&unit, &text)?;
        units.push(unit);
    }
    ensure!(units.len() >= 5, "{units:?}");
    let output = Command::new(analyze)
        .args(["verify", "--man=no"])
        .args(&units)
        .output()?;
    // What it does not know it says, and ends well all the same.
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("tidegate")).collect();
    ensure!(
        output.status.success() && ours.is_empty(),
        "{} {said}",
        output.status
    );
    Ok(())
}

/// Every key of the sysctl file is one of this kernel's.
fn the_kernel_knows_the_settings(_: &Context) -> Result<()> {
    let text = std::fs::read_to_string(deploy("sysctl.d/90-tidegate.conf"))?;
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut known = 0;
    for line in lines {
        let (key, value) = line
            .split_once(" = ")
            .with_context(|| format!("not key = value: {line}"))?;
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        ensure!(
            path.exists() && !value.is_empty(),
            "{line}: there is no {}",
            path.display()
        );
        known += 1;
    }
    ensure!(known > 0, "no settings");
    Ok(())
}
