//! What the processes that dora starts and the process of their group say to each other.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// A node is handed over. The descriptors of its process's standard output and standard error go with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Member {
    /// The node's id.
    pub(super) node: String,
    /// Its program's name.
    pub(super) program: String,
    /// The program that is to run the group.
    pub(super) host: OsString,
    pub(super) version: String,
    pub(super) folder: OsString,
    pub(super) variables: Vec<(OsString, OsString)>,
}

/// What the process of the group answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The stage runs.
    Accepted,
    /// It does not, and why.
    Refused(String),
    /// The stage has ended, with this exit code, and what is to be said of it.
    Ended { code: u8, why: Option<String> },
}

/// Longer than any message: an environment has 2 MiB at most (execve(2)).
const LONGEST_BYTES: u32 = 16 << 20;

/// Sends a message, with descriptors.
pub(super) fn send(mut to: &UnixStream, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // so short a message is sent whole
    sendmsg(to, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    to.write_all(&bytes)
}

/// Receives a message and its descriptors; `None` where the other side has closed before one.
pub(super) fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(given) = message {
            descriptors.extend(given);
        }
    }
    from.read_exact(&mut length[received.bytes..])?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some((postcard::from_bytes(&bytes).map_err(io::Error::other)?, descriptors)))
}

/// The other side of a connection: its process, where it is one of this user's.
pub(super) fn peer(connection: &UnixStream) -> io::Result<u32> {
    let peer = rustix::net::sockopt::socket_peercred(connection)?;
    if peer.uid != rustix::process::getuid() {
        return Err(io::Error::other(format!("it is a process of user {}", peer.uid.as_raw())));
    }
    Ok(peer.pid.as_raw_nonzero().get().unsigned_abs())
}
