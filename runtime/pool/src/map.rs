//! Anonymous shared files and their mappings: the only place in the workspace that maps memory.
#![allow(unsafe_code, reason = "mmap hands out memory that only its caller can vouch for")]

use crate::PoolError;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

const NO_ROOM: &str = "the machine or this process's limits (ulimit -f, ulimit -v, the container's memory) have no room for it; lower SLOTS";

/// A memfd of `bytes`, all of them reserved now, that can neither shrink nor grow any more.
///
/// Reserving means that a full machine shows here and not as a SIGBUS later; sealing means the same for a reader whose
/// producer is hostile or broken.
pub(crate) fn shared_file(what: &str, bytes: u64) -> Result<OwnedFd, PoolError> {
    let fail = |call, e: rustix::io::Errno| PoolError::Memory {
        call,
        bytes,
        what: what.to_owned(),
        source: e.into(),
        hint: NO_ROOM,
    };
    if let Some((left, limit)) = crate::room::left()
        && left < bytes
    {
        return Err(PoolError::Room { bytes, what: what.to_owned(), left, limit });
    }
    let fd = rustix::fs::memfd_create(what, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|e| fail("memfd_create", e))?;
    rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes).map_err(|e| fail("fallocate", e))?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).map_err(|e| fail("fcntl(F_ADD_SEALS)", e))?;
    Ok(fd)
}

/// Opens descriptor `fd` of process `pid`, if it is a sealed shared file of this user, of at least `bytes`.
pub(crate) fn open_shared(pool: u128, pid: u32, fd: u32, bytes: u64, writable: bool) -> Result<OwnedFd, PoolError> {
    let access = if writable { rustix::fs::OFlags::RDWR } else { rustix::fs::OFlags::RDONLY };
    let fail = |e: rustix::io::Errno| PoolError::Open { pool, pid, source: e.into() };
    let path = format!("/proc/{pid}/fd/{fd}");
    let not = |why: String| PoolError::NotAPool { pool, pid, fd, why };
    // a memfd's link reads /memfd:name; anything else (a device, a pipe) is not even opened
    let link = rustix::fs::readlink(&path, Vec::new()).map_err(fail)?;
    if !link.to_bytes().starts_with(b"/memfd:") {
        return Err(not(format!("it is {}", link.to_string_lossy())));
    }
    // NONBLOCK: the descriptor may have become a FIFO since, whose open would wait
    let access = access | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = rustix::fs::open(&path, access, rustix::fs::Mode::empty()).map_err(fail)?;
    is_shared(&file, bytes).map_err(not)?;
    Ok(file)
}

/// Whether `file` was made by this user, is sealed against shrinking and has at least `bytes`, so that no access inside of
/// them faults.
pub(crate) fn is_shared(file: &OwnedFd, bytes: u64) -> Result<(), String> {
    let seals = rustix::fs::fcntl_get_seals(file).map_err(|e| format!("it has no seals: {e}"))?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err("it is not sealed against shrinking".into());
    }
    let stat = rustix::fs::fstat(file).map_err(|e| e.to_string())?;
    let (user, me) = (stat.st_uid, rustix::process::geteuid().as_raw());
    if user != me {
        return Err(format!("it was made by user {user}, and this process is of user {me}"));
    }
    let size = stat.st_size;
    if u64::try_from(size).is_ok_and(|size| size < bytes) {
        return Err(format!("its file has {size} bytes, fewer than {bytes}"));
    }
    Ok(())
}

/// A shared mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    file: OwnedFd,
}

// SAFETY: a mapping is an address range that belongs to the process, not to a thread; `Mapping` gives no access to its
// bytes that is not either atomic or `unsafe` with its own contract.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of `file`, which is at least that long and sealed against shrinking.
    pub(crate) fn new(what: &str, file: OwnedFd, bytes: u64, writable: bool) -> Result<Self, PoolError> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: a null hint lets the kernel choose the range, so no existing mapping is replaced.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file.as_fd(), 0) }.map_err(
                |e| PoolError::Memory { call: "mmap", bytes, what: what.to_owned(), source: e.into(), hint: NO_ROOM },
            )?;
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED never returns address zero");
        let mapping = Self { start, bytes: len, file };
        // A forked child would carry our leases and our name. It gets a hole instead: a fault there, no harm here.
        // SAFETY: the advice changes what a child inherits, nothing in this process.
        unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, rustix::mm::Advice::LinuxDontFork) }.map_err(|e| {
            PoolError::Memory { call: "madvise", bytes, what: what.to_owned(), source: e.into(), hint: NO_ROOM }
        })?;
        Ok(mapping)
    }

    /// From now on nobody maps the file to write, in any process; this mapping goes on as it is.
    pub(crate) fn forbid_writers(&self) {
        // Linux 5.1 and later. An older kernel refuses, and then consumers keep off because they map it to read.
        let _ = rustix::fs::fcntl_add_seals(&self.file, SealFlags::FUTURE_WRITE);
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The number of its file. Of those that are open, no two memfds of a machine have the same.
    pub(crate) fn inode(&self) -> rustix::io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_ino)
    }

    pub(crate) fn raw_fd(&self) -> u32 {
        self.file.as_raw_fd() as u32
    }

    /// The mapping as a control block.
    pub(crate) fn block(&self) -> &crate::control::Block {
        assert!(self.bytes >= size_of::<crate::control::Block>(), "the mapping was made with the block's size");
        // SAFETY: the range is as long as a `Block` (asserted), page-aligned, and lives as long as `self`. A `Block` is
        // atomics only, so any bytes are valid, and other processes' writes are atomic accesses too.
        unsafe { self.start.cast().as_ref() }
    }

    /// The mapping as a bell's page.
    pub(crate) fn bell(&self) -> &crate::bell::Page {
        assert!(self.bytes >= size_of::<crate::bell::Page>(), "the mapping was made with the page's size");
        // SAFETY: as for `block`: long enough (asserted), page-aligned, atomics only, and it lives as long as `self`.
        unsafe { self.start.cast().as_ref() }
    }

    /// `len` bytes from `offset`.
    ///
    /// # Safety
    /// Nobody writes these bytes, in any process, while the slice lives.
    pub(crate) unsafe fn slice(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.bytes), "inside the mapping");
        // SAFETY: in range (asserted), initialized (file bytes), not written (the caller's contract).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) }
    }

    /// `len` writable bytes from `offset`.
    ///
    /// # Safety
    /// The mapping is writable, and nobody else reads or writes these bytes, in any process, while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "exclusiveness is the caller's contract: a slot, not the whole mapping")]
    pub(crate) unsafe fn slice_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.bytes), "inside the mapping");
        // SAFETY: in range (asserted), initialized, exclusive (the caller's contract).
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this range was returned by mmap with this length, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
