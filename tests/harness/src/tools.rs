//! Clients that the machine may or may not have.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// A test could not run because a program is not installed.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.0.as_str() {
            "node" => "Debian: apt-get install nodejs".to_owned(),
            "nghttp" | "h2load" => "Debian: apt-get install nghttp2-client".to_owned(),
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

/// The directory to find a Python package and what it needs in, for `PYTHONPATH`. It is installed into a cache once.
/// `module`: what is imported from it.
pub fn python_package(name: &str, module: &str) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let directory = cache.join("tidegate-tests").join(name);
    if directory.join(module).is_dir() {
        return Ok(directory);
    }
    // Under another name first: tests of several processes may want it at the same time.
    std::fs::create_dir_all(cache.join("tidegate-tests")).context("a cache for Python packages")?;
    let fresh = tempfile::Builder::new()
        .tempdir_in(cache.join("tidegate-tests"))
        .context("a directory for a Python package")?
        .keep();
    let installed = run(Command::new(find("python3")?)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--root-user-action=ignore",
            "--target",
        ])
        .arg(&fresh)
        .arg(name))?;
    ensure!(
        installed.status.success(),
        "pip does not install {name}: {}",
        String::from_utf8_lossy(&installed.stderr)
    );
    if std::fs::rename(&fresh, &directory).is_err() {
        // Somebody else was quicker.
        std::fs::remove_dir_all(&fresh).context("removing a second copy of a Python package")?;
    }
    ensure!(
        directory.join(module).is_dir(),
        "the package {name} has no module {module}"
    );
    Ok(directory)
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
