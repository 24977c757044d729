//! Memory of the device: a memfd each, with a page at its end that says what it is and who has it open.

use crate::code::{INVALID_VALUE, OUT_OF_MEMORY, StatusCode};
use crate::process::{self, Identity};
use crate::state::{PAGE, config, fresh, round_up};
use rustix::fs::{FlockOperation, MemfdFlags, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a shared file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Kind {
    Allocation = 0x6d72_6375_616c_6c6f,
    Physical = 0x6d72_6375_7068_7973,
    Event = 0x6d72_6375_6576_656e,
}

/// The names of our files begin so.
const NAME: &str = "cuda-stand-in";
/// More processes than open one allocation in any test.
const OPENERS: usize = 64;

/// A process that has an allocation open. Changed under the file's lock alone.
#[repr(C)]
struct Opener {
    pid: AtomicU64,
    started: AtomicU64,
}

/// The page at the end of a file. Of the numbers, only those that are atomic change after it was made.
#[repr(C)]
pub(crate) struct Control {
    kind: u64,
    id: u64,
    owner: Identity,
    bytes: u64,
    freed: AtomicU64,
    openers: [Opener; OPENERS],
    pub(crate) event: crate::event::EventCounts,
}

const _: () = assert!(size_of::<Control>() <= PAGE as usize);

static USED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of device memory that this process has made.
pub(crate) fn used_bytes() -> u64 {
    USED_BYTES.load(Ordering::Relaxed)
}

pub(crate) struct Backing {
    fd: OwnedFd,
    /// Whole pages, without the one at the end.
    pub(crate) bytes: u64,
    control: *const Control,
    /// Whether it counts as used by this process.
    charged: bool,
}

// SAFETY: the page is shared memory whose changing parts are atomic; the descriptor is only used, never replaced.
unsafe impl Send for Backing {}
// SAFETY: as above.
unsafe impl Sync for Backing {}

/// What the 64 bytes of a handle say.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    kind: u64,
    pub(crate) owner: Identity,
    fd: u64,
    pub(crate) id: u64,
    unused: [u64; 3],
}

const _: () = assert!(size_of::<Handle>() == 64);

impl Backing {
    /// `bytes` of new memory for the caller of that name.
    pub(crate) fn new(kind: Kind, bytes: u64) -> Result<Self, StatusCode> {
        let pages = round_up(bytes, PAGE).ok_or(OUT_OF_MEMORY)?;
        let charged = kind != Kind::Event;
        if charged {
            let free = config().memory_bytes.checked_sub(used_bytes()).ok_or(OUT_OF_MEMORY)?;
            if pages > free {
                return Err(OUT_OF_MEMORY);
            }
        }
        let id = fresh();
        let fd = rustix::fs::memfd_create(format!("{NAME}-{id:x}"), MemfdFlags::CLOEXEC).map_err(|_| OUT_OF_MEMORY)?;
        rustix::fs::ftruncate(&fd, pages + PAGE).map_err(|_| OUT_OF_MEMORY)?;
        let control = map_control(&fd, pages)?;
        // SAFETY: a page that was just made, is large enough, and that nobody else knows; zero is a value of the rest.
        unsafe {
            (&raw mut (*control).kind).write(kind as u64);
            (&raw mut (*control).id).write(id);
            (&raw mut (*control).owner).write(process::me());
            (&raw mut (*control).bytes).write(bytes);
        }
        if charged {
            USED_BYTES.fetch_add(pages, Ordering::Relaxed);
        }
        Ok(Self { fd, bytes: pages, control, charged })
    }

    /// What a descriptor holds, where it is one of ours.
    pub(crate) fn from_fd(kind: Kind, fd: OwnedFd) -> Result<Self, StatusCode> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let link = std::fs::read_link(path).map_err(|_| INVALID_VALUE)?;
        if !link.to_string_lossy().starts_with(&format!("/memfd:{NAME}")) {
            return Err(INVALID_VALUE);
        }
        let size = rustix::fs::fstat(&fd).map_err(|_| INVALID_VALUE)?.st_size as u64;
        let bytes = size.checked_sub(PAGE).filter(|bytes| bytes.is_multiple_of(PAGE)).ok_or(INVALID_VALUE)?;
        let control = map_control(&fd, bytes)?.cast_const();
        let backing = Self { fd, bytes, control, charged: false };
        if backing.control().kind != kind as u64 || backing.is_freed() {
            return Err(INVALID_VALUE);
        }
        Ok(backing)
    }

    /// Opens what another process exported.
    pub(crate) fn open(kind: Kind, handle: &Handle) -> Result<Self, StatusCode> {
        if handle.kind != kind as u64 || !process::lives(handle.owner) {
            return Err(INVALID_VALUE);
        }
        let path = format!("/proc/{}/fd/{}", handle.owner.pid, handle.fd);
        // looked at before it is opened: opening what the number stands for by now may have effects
        let link = std::fs::read_link(&path).map_err(|_| INVALID_VALUE)?;
        if !link.to_string_lossy().starts_with(&format!("/memfd:{NAME}")) {
            return Err(INVALID_VALUE);
        }
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|_| INVALID_VALUE)?;
        let backing = Self::from_fd(kind, fd)?;
        if backing.control().id != handle.id || backing.control().owner != handle.owner {
            return Err(INVALID_VALUE);
        }
        Ok(backing)
    }

    /// What another process opens it by.
    pub(crate) fn handle(&self) -> Handle {
        let control = self.control();
        let fd = self.fd.as_raw_fd() as u64;
        Handle { kind: control.kind, owner: control.owner, fd, id: control.id, unused: [0; 3] }
    }

    pub(crate) fn control(&self) -> &Control {
        // SAFETY: mapped until `self` is dropped; made by `new`, here or in the process whose file this is.
        unsafe { &*self.control }
    }

    /// Bytes that were asked for.
    pub(crate) fn asked_bytes(&self) -> u64 {
        self.control().bytes.min(self.bytes)
    }

    pub(crate) fn is_own(&self) -> bool {
        self.control().owner == process::me()
    }

    pub(crate) fn owner(&self) -> Identity {
        self.control().owner
    }

    pub(crate) fn id(&self) -> u64 {
        self.control().id
    }

    pub(crate) fn mark_freed(&self) {
        self.control().freed.store(1, Ordering::Release);
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.control().freed.load(Ordering::Acquire) != 0
    }

    pub(crate) fn duplicate(&self) -> Result<OwnedFd, StatusCode> {
        self.fd.try_clone().map_err(|_| OUT_OF_MEMORY)
    }

    /// Maps it at addresses of the arena.
    pub(crate) fn map(&self, at: u64, bytes: u64, access: ProtFlags) -> Result<(), StatusCode> {
        // SAFETY: a range of the arena that was reserved for this, with nothing mapped in it.
        let mapped = unsafe {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            rustix::mm::mmap(at as *mut c_void, bytes as usize, access, flags, self.fd.as_fd(), 0)
        };
        mapped.map(drop).map_err(|_| OUT_OF_MEMORY)
    }

    fn with_openers<T>(&self, run: impl FnOnce(&[Opener; OPENERS]) -> T) -> Result<T, StatusCode> {
        rustix::fs::flock(&self.fd, FlockOperation::LockExclusive).map_err(|_| INVALID_VALUE)?;
        let result = run(&self.control().openers);
        rustix::fs::flock(&self.fd, FlockOperation::Unlock).map_err(|_| INVALID_VALUE)?;
        Ok(result)
    }

    /// Notes that this process has it open.
    pub(crate) fn enter(&self) -> Result<(), StatusCode> {
        let me = process::me();
        let entered = self.with_openers(|openers| {
            let place = openers.iter().find(|o| o.who().is_none_or(|who| !process::lives(who)))?;
            place.started.store(me.started, Ordering::Relaxed);
            place.pid.store(me.pid, Ordering::Relaxed);
            Some(())
        });
        entered?.ok_or(OUT_OF_MEMORY)
    }

    /// Notes that this process has let it go.
    pub(crate) fn leave(&self) -> Result<(), StatusCode> {
        self.with_openers(|openers| {
            if let Some(own) = openers.iter().find(|o| o.who() == Some(process::me())) {
                own.pid.store(0, Ordering::Relaxed);
            }
        })
    }

    /// Living processes that have it open.
    pub(crate) fn opened_by(&self) -> Result<Vec<u64>, StatusCode> {
        self.with_openers(|openers| {
            openers.iter().filter_map(Opener::who).filter(|&who| process::lives(who)).map(|who| who.pid).collect()
        })
    }
}

impl Opener {
    fn who(&self) -> Option<Identity> {
        let (pid, started) = (self.pid.load(Ordering::Relaxed), self.started.load(Ordering::Relaxed));
        (pid != 0).then_some(Identity { pid, started })
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // SAFETY: mapped by `map_control` with this length, and not used again.
        let _ = unsafe { rustix::mm::munmap(self.control.cast_mut().cast(), PAGE as usize) };
        if self.charged {
            USED_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

fn map_control(fd: &OwnedFd, at: u64) -> Result<*mut Control, StatusCode> {
    // SAFETY: a new mapping, at addresses that the kernel chooses.
    let page = unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        rustix::mm::mmap(std::ptr::null_mut(), PAGE as usize, access, MapFlags::SHARED, fd, at)
    };
    Ok(page.map_err(|_| OUT_OF_MEMORY)?.cast())
}
