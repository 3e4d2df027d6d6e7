//! Clients that the machine may or may not have.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};

/// A test could not run because a program is not installed.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.0.as_str() {
            "nghttp" | "h2load" => "Debian: apt-get install nghttp2-client".to_owned(),
            "websockets" | "grpcio" => format!("for Python: pip install {}", self.0),
            same => format!("Debian: apt-get install {same}"),
        };
        write!(f, "{} is not installed ({how})", self.0)
    }
}

impl std::error::Error for Missing {}

/// Finds a program on the path, or says with [`Missing`] that this test cannot run here.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| Missing(name.to_owned()).into())
}

/// Finds a Python that has a package with this module, or says with [`Missing`] that this test cannot run here.
pub fn python(module: &str, package: &str) -> Result<PathBuf> {
    let python = find("python3")?;
    match run(Command::new(&python).args(["-c", &format!("import {module}")]))?
        .status
        .success()
    {
        true => Ok(python),
        false => Err(Missing(package.to_owned()).into()),
    }
}

/// Runs `curl` silently, within a bound of 60 seconds, and returns what it did.
pub fn curl(arguments: &[&str]) -> Result<Output> {
    run(Command::new(find("curl")?)
        .args(["--silent", "--show-error", "--max-time", "60"])
        .args(arguments))
}

/// Runs a command with nothing on its standard input.
pub fn run(command: &mut Command) -> Result<Output> {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("running {:?}", command.get_program()))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
