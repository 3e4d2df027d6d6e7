//! What systemd offers a service: sockets that it holds open (sd_listen_fds(3)) and being told how the service is
//! (sd_notify(3)). Both are a few lines over the environment; where it says nothing, nothing happens.

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tidegate_rt as rt;

use crate::sockets::{Role, Sockets};

/// Variables by which sockets are passed; a process that is given its sockets another way must not get them.
pub const LISTEN_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Sockets of one service.
const SOCKETS_MAX: usize = 8192;

/// The sockets that this process was started with. Meant for it are those for its own process id, and those for its
/// supervisor's, which passes them on.
///
/// # Errors
/// When they cannot be used; the text says what to change in the socket unit.
pub(crate) fn listeners(supervisor: Option<u32>) -> io::Result<Vec<(Role, TcpListener)>> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let Some(roles) = roles(
        &variable("LISTEN_PID"),
        &variable("LISTEN_FDS"),
        &variable("LISTEN_FDNAMES"),
        [Some(std::process::id()), supervisor],
    )
    .map_err(io::Error::other)?
    else {
        return Ok(Vec::new());
    };
    let sockets = rt::inherited(roles.len())?;
    Sockets::adopt(roles.into_iter().zip(sockets).collect())
}

/// What the passed sockets are for; `None` where none are passed to us.
fn roles(pid: &str, count: &str, names: &str, ours: [Option<u32>; 2]) -> Result<Option<Vec<Role>>, String> {
    let Ok(pid) = pid.parse::<u32>() else {
        return Ok(None);
    };
    if !ours.contains(&Some(pid)) {
        return Ok(None);
    }
    let count = count
        .parse::<usize>()
        .ok()
        .filter(|count| *count <= SOCKETS_MAX)
        .ok_or_else(|| format!("LISTEN_FDS is `{count}`, not a number of sockets"))?;
    if count == 0 {
        return Ok(None);
    }
    let names: Vec<&str> = names.split(':').collect();
    (0..count)
        .map(|at| {
            let name = names.get(at).copied().unwrap_or_default();
            Role::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| {
                format!(
                    "socket {} of {count} is called `{name}`; set FileDescriptorName= of its socket unit to http, https or \
                     metrics",
                    at + 1
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

/// Tells systemd how the service is, such as `READY=1`. Does nothing where nobody asked to be told.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = tell(path.as_bytes(), state) {
        tracing::warn!(%error, state, "systemd cannot be told");
    }
}

fn tell(path: &[u8], state: &str) -> io::Result<()> {
    let address = match path.split_first() {
        // A name that is no file.
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_known_by_their_names() {
        let ours = [Some(7), Some(3)];
        assert_eq!(roles("", "", "", ours), Ok(None));
        assert_eq!(roles("8", "1", "http", ours), Ok(None), "another process's");
        assert_eq!(roles("7", "0", "", ours), Ok(None));
        assert_eq!(
            roles("7", "3", "http:https:http", ours),
            Ok(Some(vec![Role::Http, Role::Https, Role::Http]))
        );
        assert_eq!(roles("3", "1", "metrics", ours), Ok(Some(vec![Role::Metrics])));
        for (count, names) in [
            ("1", "tidegate.socket"),
            ("2", "http"),
            ("1", ""),
            ("x", "http"),
            ("-1", "http"),
            ("99999", "http"),
        ] {
            assert!(roles("7", count, names, ours).is_err(), "{count} {names}");
        }
    }

    #[test]
    fn what_is_told_arrives_by_path_and_by_abstract_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut text = [0; 64];
        tell(path.as_os_str().as_bytes(), "READY=1").unwrap();
        let length = socket.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"READY=1");

        let name = format!("tidegate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        tell(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        let length = socket.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"STOPPING=1");
    }
}
