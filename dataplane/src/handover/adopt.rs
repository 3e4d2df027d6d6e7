//! The side of the process that takes over.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::wire::{Message, VERSIONS, receive, receive_sockets, send};
use super::{Fault, HandoverError, STEP, socket};
use crate::config::{Frozen, Handle};
use crate::net::tls::SavedKey;
use crate::sockets::{Role, Sockets};

/// A hand-over under way: the running process waits for this one to get ready.
#[derive(Debug)]
pub(crate) struct Adoption {
    stream: UnixStream,
    disk: Frozen,
    ticket_keys: Vec<SavedKey>,
    fault: Option<Fault>,
}

impl Adoption {
    /// Asks the process that runs on a data directory for what it has, and gets its sockets.
    ///
    /// # Errors
    /// When there is none, or it refuses.
    pub(crate) fn begin(
        data_dir: &Path,
        faults: bool,
    ) -> Result<(Self, Vec<(Role, TcpListener)>), HandoverError> {
        let mut stream = socket::connect(data_dir)?;
        for bound in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            // The other side's own steps lie within one of ours.
            bound(&stream, Some(STEP * 3)).map_err(|error| HandoverError::System("a time-out", error))?;
        }
        let hello = Message::Hello {
            versions: VERSIONS.to_vec(),
            program: env!("CARGO_PKG_VERSION").into(),
        };
        send(&mut stream, &hello)?;
        let Message::Offer {
            version,
            disk,
            ticket_keys,
            sockets: roles,
        } = receive(&mut stream)?
        else {
            return Err(HandoverError::Malformed("no offer comes".into()));
        };
        if !VERSIONS.contains(&version) {
            return Err(HandoverError::Malformed(format!(
                "version {version} was not asked for"
            )));
        }
        let sockets = receive_sockets(&stream, &roles)?;
        let sockets = Sockets::adopt(sockets)
            .map_err(|error| HandoverError::System("cannot take a socket over", error))?;
        let adoption = Self {
            stream,
            disk,
            ticket_keys,
            fault: faults.then(|| Fault::wanted(data_dir)).flatten(),
        };
        Ok((adoption, sockets))
    }

    /// The session ticket keys to go on with.
    pub(crate) fn tickets(&mut self) -> Vec<SavedKey> {
        std::mem::take(&mut self.ticket_keys)
    }

    /// Ends it from this side.
    pub(crate) fn refuse(mut self, reason: String) -> HandoverError {
        // The other side may be gone: then it needs no reason.
        let _ = send(
            &mut self.stream,
            &Message::Refused {
                reason: reason.clone(),
            },
        );
        HandoverError::Refused(reason)
    }

    /// Takes over: the shards run what is on disk, up to `revision`. `accept` has them accept, and must not fail half-way.
    ///
    /// # Errors
    /// When the other side does not let go. It goes on then, and this process must end.
    pub(crate) fn finish(
        mut self,
        revision: u64,
        config: &Handle,
        accept: impl FnOnce() -> Result<(), HandoverError>,
    ) -> Result<(), HandoverError> {
        if revision < self.disk.revision {
            let served = self.disk.revision;
            return Err(self.refuse(format!(
                "the disk holds configuration up to revision {revision}, the running data plane serves {served}: restart to \
                 get the rest from the control plane"
            )));
        }
        Fault::strike(self.fault, Fault::EndBeforeReady, Fault::HangBeforeReady);
        send(&mut self.stream, &Message::Ready)?;
        let Message::Go { levels } = receive(&mut self.stream)? else {
            return Err(HandoverError::Malformed(
                "something else comes than the word to go".into(),
            ));
        };
        Fault::strike(self.fault, Fault::EndAfterGo, Fault::HangAfterGo);
        let busy = |error: crate::config::NoAnswer| HandoverError::Refused(error.to_string());
        config.restore(levels, STEP).map_err(busy)?;
        accept()?;
        // It is done, whether the other side still hears of it or not.
        let _ = send(&mut self.stream, &Message::Serving);
        config.thaw(STEP).map_err(busy)
    }
}
