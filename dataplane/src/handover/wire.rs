//! Messages between the two processes, and their form: a length of four bytes, then JSON. Sockets follow an offer, as
//! ancillary data of single bytes.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use zeroize::Zeroizing;

use super::HandoverError;
use crate::config::Frozen;
use crate::limit::Level;
use crate::net::tls::SavedKey;
use crate::sockets::Role;

/// The versions of this exchange that this program speaks, newest first. Members may be added to messages without a new
/// one: who does not know them leaves them out.
pub(super) const VERSIONS: [u32; 1] = [1];

/// The longest message; levels are most of it.
const MESSAGE_MAX: u32 = 64 * 1024 * 1024;

/// Sockets of one offer.
const SOCKETS_MAX: usize = 8192;

/// Descriptors that travel with one byte; the kernel's bound is 253.
const BATCH: usize = 64;

/// What one side says to the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Message {
    /// The new process's first word.
    Hello {
        /// The versions that it speaks.
        versions: Vec<u32>,
        /// Its program's version, for the log.
        program: String,
    },
    /// What it gets. The sockets follow, in this order.
    Offer {
        /// The version that both speak.
        version: u32,
        /// What it must find on disk.
        disk: Frozen,
        /// TLS session ticket keys. None come from a process that knows them in another form.
        #[serde(default)]
        ticket_keys: Vec<SavedKey>,
        /// What the sockets are for.
        sockets: Vec<Role>,
    },
    /// It could serve.
    Ready,
    /// Nobody accepts any more: it may.
    Go {
        /// Bucket levels of this moment.
        levels: Vec<Level>,
    },
    /// It accepts.
    Serving,
    /// The hand-over ends, and why.
    Refused {
        /// For people.
        reason: String,
    },
}

/// Sends a message.
pub(super) fn send(stream: &mut UnixStream, message: &Message) -> Result<(), HandoverError> {
    // Keys may be among it.
    let text = serde_json::to_vec(message)
        .map(Zeroizing::new)
        .map_err(|error| HandoverError::Malformed(error.to_string()))?;
    let length = u32::try_from(text.len())
        .ok()
        .filter(|length| *length <= MESSAGE_MAX)
        .ok_or_else(|| HandoverError::Malformed(format!("{} bytes are too many", text.len())))?;
    let framed = Zeroizing::new([length.to_le_bytes().as_slice(), &text].concat());
    stream.write_all(&framed).map_err(failed("sending"))
}

/// Receives a message. A refusal is an error, with its reason.
pub(super) fn receive(stream: &mut UnixStream) -> Result<Message, HandoverError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(failed("receiving"))?;
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_MAX {
        return Err(HandoverError::Malformed(format!(
            "{length} bytes, of {MESSAGE_MAX} at most"
        )));
    }
    // As it comes: a length alone takes no memory.
    let mut text = Zeroizing::new(Vec::new());
    let got = stream
        .take(u64::from(length))
        .read_to_end(&mut text)
        .map_err(failed("receiving"))?;
    if got < length as usize {
        return Err(HandoverError::Gone);
    }
    match serde_json::from_slice(&text) {
        Ok(Message::Refused { reason }) => Err(HandoverError::Refused(reason)),
        Ok(message) => Ok(message),
        Err(error) => Err(HandoverError::Malformed(error.to_string())),
    }
}

/// Sends sockets.
pub(super) fn send_sockets(
    stream: &UnixStream,
    sockets: &[(Role, TcpListener)],
) -> Result<(), HandoverError> {
    for batch in sockets.chunks(BATCH) {
        let descriptors: Vec<_> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(HandoverError::Malformed("too many sockets at once".into()));
        }
        sendmsg(stream, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(|error| failed("sending sockets")(error.into()))?;
    }
    Ok(())
}

/// Receives so many sockets.
pub(super) fn receive_sockets(
    stream: &UnixStream,
    roles: &[Role],
) -> Result<Vec<(Role, OwnedFd)>, HandoverError> {
    if roles.len() > SOCKETS_MAX {
        return Err(HandoverError::Malformed(format!(
            "{} sockets, of {SOCKETS_MAX} at most",
            roles.len()
        )));
    }
    let mut sockets = Vec::with_capacity(roles.len());
    for batch in roles.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0; 1];
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|error| failed("receiving sockets")(error.into()))?;
        if received.bytes == 0 {
            return Err(HandoverError::Gone);
        }
        let before = sockets.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
        if sockets.len() - before != batch.len() {
            return Err(HandoverError::Malformed(format!(
                "{} sockets came where {} were announced",
                sockets.len() - before,
                batch.len()
            )));
        }
    }
    Ok(roles.iter().copied().zip(sockets).collect())
}

/// What a failed read or write means.
fn failed(what: &'static str) -> impl Fn(io::Error) -> HandoverError {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            HandoverError::Gone
        }
        // A time-out set on the socket shows as either.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            HandoverError::Late("the other process", super::STEP)
        }
        _ => HandoverError::System(what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_sockets_arrive_as_they_were_sent() {
        let (mut old, mut new) = UnixStream::pair().unwrap();
        let sockets: Vec<_> = (0..BATCH + 3)
            .map(|_| (Role::Http, TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let roles: Vec<_> = sockets.iter().map(|(role, _)| *role).collect();
        let offer = Message::Offer {
            version: 1,
            disk: Frozen {
                installation: "i".into(),
                revision: 7,
            },
            ticket_keys: Vec::new(),
            sockets: roles.clone(),
        };
        send(&mut old, &offer).unwrap();
        send_sockets(&old, &sockets).unwrap();
        send(&mut old, &Message::Serving).unwrap();
        assert!(matches!(receive(&mut new).unwrap(), Message::Offer { disk, .. } if disk.revision == 7));
        let received = receive_sockets(&new, &roles).unwrap();
        for ((_, sent), (_, got)) in sockets.iter().zip(received) {
            let got = TcpListener::from(got);
            assert_eq!(sent.local_addr().unwrap(), got.local_addr().unwrap());
        }
        assert!(matches!(receive(&mut new).unwrap(), Message::Serving));
        drop(old);
        assert!(matches!(receive(&mut new), Err(HandoverError::Gone)));
    }

    #[test]
    fn what_is_no_message_is_refused_within_bounds() {
        for bytes in [
            &b"\xff\xff\xff\xff"[..],
            b"\x02\0\0\0{]",
            b"\x0f\0\0\0{\"is\":\"unheard\"}",
            b"\x05\0\0\0{",
            b"\x01",
        ] {
            let (mut old, mut new) = UnixStream::pair().unwrap();
            old.write_all(bytes).unwrap();
            drop(old);
            assert!(receive(&mut new).is_err(), "{bytes:?}");
        }
        let (mut old, mut new) = UnixStream::pair().unwrap();
        let reason = "not now".to_owned();
        send(&mut old, &Message::Refused { reason }).unwrap();
        let error = receive(&mut new).unwrap_err().to_string();
        assert_eq!(error, "not now");
    }

    /// Members that a later version adds do not disturb this one.
    #[test]
    fn unknown_members_are_passed_over() {
        let text = r#"{"is":"hello","versions":[9,1],"program":"9.0","later":{"a":[1]}}"#;
        let hello: Message = serde_json::from_str(text).unwrap();
        assert!(matches!(hello, Message::Hello { versions, .. } if versions == [9, 1]));
    }

    #[test]
    fn sockets_that_do_not_come_are_noticed() {
        let (old, new) = UnixStream::pair().unwrap();
        (&old).write_all(b"s").unwrap();
        assert!(receive_sockets(&new, &[Role::Http]).is_err());
        drop(old);
        assert!(matches!(
            receive_sockets(&new, &[Role::Http]),
            Err(HandoverError::Gone)
        ));
        assert!(receive_sockets(&new, &[Role::Http; SOCKETS_MAX + 1]).is_err());
    }
}
