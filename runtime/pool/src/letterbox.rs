//! Bells by mail: for a producer that cannot open what its consumers have.
//!
//! A process in a sandbox may not look into one that is outside, not even through `/proc/<pid>/fd`. So it has a letterbox, a
//! socket with an abstract name, and a consumer that opens a pool posts its bell's descriptor there. Nothing but bells is
//! accepted: sealed shared files that a process of the same user made. Whoever fills a letterbox with something else delays
//! the post, and the producer sends dora messages meanwhile.

use crate::bell::Bell;
use crate::process::Owner;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, recvmsg, sendmsg_addr,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A bell's process, and the descriptor that it has there.
type Key = (u64, u32);

struct Letterbox {
    socket: UnixDatagram,
    bells: Mutex<BTreeMap<Key, Bell>>,
}

static LETTERBOX: OnceLock<Letterbox> = OnceLock::new();
/// The letterboxes that bells of this process were posted to: by owner, and by the bell's descriptor and file, since another
/// bell may come to have the same descriptor.
static POSTED: Mutex<BTreeSet<(u64, u32, u64)>> = Mutex::new(BTreeSet::new());

/// Letters that are read at a time, at most: more than a graph has consumers.
const AT_A_TIME: usize = 64;
const LETTER_BYTES: usize = 12;

fn name(owner: Owner) -> String {
    format!("millrace/{}/bells/{:016x}", rustix::process::getuid().as_raw(), owner.0)
}

/// From here on, this process's pools ring bells that were posted to it, too.
///
/// # Errors
/// No `/proc`; no sockets with abstract names.
pub fn receive_bells() -> io::Result<()> {
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name(Owner::me()?))?)?;
    socket.set_nonblocking(true)?;
    let _ = LETTERBOX.set(Letterbox { socket, bells: Mutex::default() });
    Ok(())
}

/// This process has a letterbox.
pub(crate) fn is_there() -> bool {
    LETTERBOX.get().is_some()
}

/// Posts this process's bell, which it has at descriptor `bell`, to the process `to`, where that has a letterbox.
pub(crate) fn post(me: Owner, bell: BorrowedFd<'_>, number: u32, to: Owner) {
    let Ok(file) = rustix::fs::fstat(bell) else { return };
    let post = (to.0, number, file.st_ino);
    let mut posted = POSTED.lock().unwrap_or_else(PoisonError::into_inner);
    if me == to || posted.contains(&post) {
        return;
    }
    let send = || -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        let to = SocketAddrUnix::new_abstract_name(name(to).as_bytes())?;
        let letter = letter((me.0, number));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [bell];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        // a full letterbox is not waited for: the producer sends dora messages instead
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg_addr(&socket, &to, &[IoSlice::new(&letter)], &mut control, flags)?;
        Ok(())
    };
    // most processes have no letterbox, and open the bell themselves
    if send().is_ok() {
        posted.retain(|(process, ..)| !Owner(*process).is_dead());
        posted.insert(post);
    }
}

/// The bell that a process has at this descriptor, where it was posted here.
pub(crate) fn received(owner: Owner, fd: u32) -> Option<Bell> {
    let letterbox = LETTERBOX.get()?;
    let mut bells = letterbox.bells.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..AT_A_TIME {
        match letterbox.read() {
            Ok(Some((key, bell))) => {
                bells.retain(|(process, _), _| !Owner(*process).is_dead());
                bells.insert(key, bell);
            }
            Ok(None) => {} // what is no bell is thrown away
            Err(_) => break,
        }
    }
    bells.get(&(owner.0, fd)).cloned()
}

impl Letterbox {
    /// The next letter; `None` inside where it is no bell.
    fn read(&self) -> rustix::io::Result<Option<(Key, Bell)>> {
        let mut bytes = [0; LETTER_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let read = recvmsg(self.socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let Some(file) = files.flatten().last().filter(|_| read.bytes == LETTER_BYTES) else { return Ok(None) };
        let key = key(bytes);
        Ok(Bell::of_file(Owner(key.0), file).map(|bell| (key, bell)))
    }
}

fn letter((owner, fd): Key) -> [u8; LETTER_BYTES] {
    let mut bytes = [0; LETTER_BYTES];
    bytes[..8].copy_from_slice(&owner.to_le_bytes());
    bytes[8..].copy_from_slice(&fd.to_le_bytes());
    bytes
}

fn key(bytes: [u8; LETTER_BYTES]) -> Key {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::print_stdout,
        reason = "a test fails by panicking, and its child reports by lines"
    )]
    use super::*;
    use crate::map::shared_file;
    use std::io::Read;
    use std::process::{Command, Stdio};

    const ROLE: &str = "MILLRACE_LETTERBOX_OF";

    /// Sends something to the letterbox of this process.
    fn send(letter: &[u8], file: Option<BorrowedFd<'_>>) {
        let to = SocketAddrUnix::new_abstract_name(name(Owner::me().unwrap()).as_bytes()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files: Vec<_> = file.into_iter().collect();
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files)));
        let socket = UnixDatagram::unbound().unwrap();
        sendmsg_addr(&socket, &to, &[IoSlice::new(letter)], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_bell_of_another_process_comes_by_mail_and_nothing_else_does() {
        if let Ok(to) = std::env::var(ROLE) {
            // the other process: it posts its bell twice, which is one letter, and runs until it is told to end
            let bell = Bell::create().unwrap();
            let me = Owner::me().unwrap();
            (0..2).for_each(|_| bell.post(me, Owner(to.parse().unwrap())));
            let ring_count = bell.ring_count();
            println!("posted {} {}", me.0, bell.raw_fd());
            bell.wait(ring_count, std::time::Duration::from_secs(20));
            println!("rung {}", bell.ring_count() - ring_count);
            return;
        }
        receive_bells().unwrap();
        let name = "letterbox::tests::a_bell_of_another_process_comes_by_mail_and_nothing_else_does";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(ROLE, Owner::me().unwrap().0.to_string());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("posted ") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "it posted no bell");
        }
        let mut numbers = line.split("posted ").nth(1).unwrap().split_ascii_whitespace();
        let owner = Owner(numbers.next().unwrap().parse().unwrap());
        let fd: u32 = numbers.next().unwrap().parse().unwrap();

        // what is no bell, or is not the bell of the process that it names
        let own = Bell::create().unwrap();
        let pool = shared_file("millrace other", 4096).unwrap();
        let unsealed = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        send(&letter((owner.0, 77)), Some(own.file()));
        send(&letter((owner.0, 78)), Some(pool.as_fd()));
        send(&letter((owner.0, 79)), Some(unsealed.as_fd()));
        send(&letter((owner.0, 80)), None);
        send(b"short", Some(own.file()));
        for number in 77..=80 {
            assert!(received(owner, number).is_none(), "{number}");
        }
        received(owner, fd).expect("the bell was posted").ring();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("rung 1"), "{rest}");
        assert!(child.wait().unwrap().success());
    }
}
