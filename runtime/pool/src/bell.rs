//! A bell in shared memory: the wake-up counter that a process sleeps on. Other processes ring it to wake the process.

use crate::PoolError;
use crate::control;
use crate::letterbox;
use crate::map::{Mapping, is_shared, open_shared, shared_file};
use crate::process::Owner;
use crate::protocol;
use rustix::thread::futex;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `MILLBELL` as a big-endian number.
const MAGIC: u64 = 0x4d49_4c4c_4245_4c4c;

/// A bell's file.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Page {
    magic: AtomicU64,
    owner: AtomicU64,
    bell: control::Bell,
}

/// The bell of a process that reads from pools. The producers of these pools ring it at each publication, and the
/// process's own threads may ring it too.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bell {
    page: Arc<Mapping>,
}

impl Bell {
    /// Makes this process a bell.
    ///
    /// # Errors
    /// No memory, no `/proc`.
    pub fn create() -> Result<Self, PoolError> {
        let me = Owner::me().map_err(|source| PoolError::Proc { source })?;
        let bytes = size_of::<Page>() as u64;
        let page = Mapping::new("a bell", shared_file("millrace bell", bytes)?, bytes, true)?;
        page.bell().owner.store(me.0, Ordering::Relaxed);
        page.bell().magic.store(MAGIC, Ordering::Release);
        Ok(Self { page: Arc::new(page) })
    }

    /// Opens the bell of another process; `None` where it is not that process's, or cannot be opened.
    pub(crate) fn open(owner: Owner, fd: u32) -> Option<Self> {
        letterbox::received(owner, fd).or_else(|| {
            let file = open_shared(0, owner.pid(), fd, size_of::<Page>() as u64, true).ok()?;
            Self::of_file(owner, file)
        })
    }

    /// The bell in a file, where it is that process's.
    pub(crate) fn of_file(owner: Owner, file: OwnedFd) -> Option<Self> {
        let bytes = size_of::<Page>() as u64;
        is_shared(&file, bytes).ok()?;
        let page = Mapping::new("a bell", file, bytes, true).ok()?;
        let whole = page.bell().magic.load(Ordering::Acquire) == MAGIC;
        (whole && page.bell().owner.load(Ordering::Relaxed) == owner.0).then(|| Self { page: Arc::new(page) })
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.page.file()
    }

    /// Gives it to a producer that cannot open it.
    pub(crate) fn post(&self, me: Owner, to: Owner) {
        letterbox::post(me, self.file(), self.raw_fd(), to);
    }

    pub(crate) fn raw_fd(&self) -> u32 {
        self.page.raw_fd()
    }

    /// How often the bell was rung. Read this count before you look for work. If there is none, pass the count to
    /// [`wait`](Self::wait).
    pub fn ring_count(&self) -> u32 {
        protocol::ring_count(&self.page.bell().bell)
    }

    /// Sleeps until the bell is rung, for `limit` at most. It does not sleep if the bell was rung after
    /// [`ring_count`](Self::ring_count) returned this count. Only one thread may call this at a time.
    pub fn wait(&self, ring_count: u32, limit: Duration) {
        wait(&self.page.bell().bell, ring_count, limit);
    }

    /// Wakes the process, or keeps it from falling asleep.
    pub fn ring(&self) {
        ring(&self.page.bell().bell);
    }
}

pub(crate) fn wait(bell: &control::Bell, ring_count: u32, limit: Duration) {
    let limit = rustix::time::Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    protocol::announce_sleep(bell);
    // An error is a signal, a timeout or a changed count. In each case the caller checks again.
    let _ = futex::wait(&bell.rung, futex::Flags::empty(), ring_count, Some(&limit));
    protocol::announce_awake(bell);
}

pub(crate) fn ring(bell: &control::Bell) {
    if protocol::ring(bell) {
        let _ = futex::wake(&bell.rung, futex::Flags::empty(), 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_ring_wakes_the_sleeper_and_one_before_keeps_it_awake() {
        let bell = Bell::create().unwrap();
        let me = Owner::me().unwrap();
        let other = Bell::open(me, bell.raw_fd()).unwrap();
        let ring_count = bell.ring_count();
        other.ring();
        let begun = Instant::now();
        bell.wait(ring_count, Duration::from_secs(20)); // rung since
        let ring_count = bell.ring_count();
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.ring();
        });
        bell.wait(ring_count, Duration::from_secs(20));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        ringer.join().unwrap();
    }

    #[test]
    fn what_is_not_the_process_s_bell_is_not_opened() {
        let bell = Bell::create().unwrap();
        let me = Owner::me().unwrap();
        assert!(Bell::open(Owner(me.0 ^ 1), bell.raw_fd()).is_none(), "another start time");
        assert!(Bell::open(me, 0).is_none(), "another file");
        let pool = shared_file("millrace other", 4096).unwrap();
        assert!(Bell::open(me, std::os::fd::AsRawFd::as_raw_fd(&pool) as u32).is_none(), "a memfd of another kind");
    }
}
