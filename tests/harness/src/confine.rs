//! Starting a program in a world without io_uring, as the default seccomp profiles of container runtimes make it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// `io_uring_setup`, `io_uring_enter`, `io_uring_register`: the same numbers on every architecture Linux gave them to.
const IO_URING: [i64; 3] = [425, 426, 427];

/// A command that starts `program` with io_uring refused: the three system calls answer `EPERM`.
pub fn command(program: &std::path::Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("the test executable's own path")?);
    command.arg(crate::HELPER).arg("confine").arg(program);
    Ok(command)
}

/// In the helper process: installs the filter, then becomes the program named by the arguments.
pub(crate) fn exec(arguments: &[OsString]) -> Result<()> {
    let [program, rest @ ..] = arguments else {
        bail!("confine: no program given");
    };
    let filter: BpfProgram = SeccompFilter::new(
        IO_URING
            .into_iter()
            .map(|number| (number, Vec::new()))
            .collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error() as u32),
        TargetArch::try_from(std::env::consts::ARCH).context("seccomp knows no such architecture")?,
    )
    .and_then(TryInto::try_into)
    .context("building the seccomp filter")?;
    seccompiler::apply_filter(&filter).context("installing the seccomp filter")?;
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("starting {}", program.display()))
}
