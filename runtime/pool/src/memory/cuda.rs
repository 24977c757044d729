//! Slots in a GPU's memory. The bytes never leave it: a handle crosses to other processes once a pool, and for each
//! publication an event says when they are complete.

use crate::PoolError;
use millrace_cuda::{CudaError, DeviceMemory, Event, Gpu, Span, Stream};
use millrace_frame::Fence;
use rustix::process::{PTracer, Pid, PidfdFlags, PidfdGetfdFlags};
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// How a GPU's memory is shared between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// By the 64 bytes of a legacy IPC handle.
    Ipc,
    /// By a file descriptor of physical memory (the driver's virtual memory management), where legacy handles are not
    /// offered. Slots are read-only for consumers.
    Descriptor,
}

impl Share {
    const fn kind(self) -> u32 {
        match self {
            Self::Ipc => 2,
            Self::Descriptor => 3,
        }
    }
}

/// Slots in one allocation on one GPU.
#[derive(Debug)]
pub(crate) struct CudaMemory {
    memory: Arc<DeviceMemory>,
    share: Share,
    slot_bytes: u64,
    /// In the process that made the memory: an event for each slot, done when what was last written is complete.
    ready: Vec<Ready>,
    /// In other processes: the events that publications named, by handle.
    opened: Mutex<HashMap<[u8; 64], Arc<Event>>>,
    /// For the copies of tests and records; made at the first.
    copies: OnceLock<Stream>,
}

/// An event of a slot, and what other processes open it by.
#[derive(Debug)]
struct Ready {
    event: Arc<Event>,
    handle: [u8; 64],
}

/// What this process has exported, by what others open it with. A reader in this process has the same memory and the same
/// events, by pointer: nothing has to be opened, and the driver opens no handle in the process that exported it.
type Own<T> = Mutex<Vec<(Vec<u8>, Weak<T>)>>;
static OWN_MEMORY: Own<DeviceMemory> = Mutex::new(Vec::new());
static OWN_EVENTS: Own<Event> = Mutex::new(Vec::new());

fn own<T>(of: &Own<T>, export: &[u8]) -> Option<Arc<T>> {
    let known = of.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().find(|(known, _)| known == export).and_then(|(_, kept)| kept.upgrade())
}

fn keep<T>(of: &Own<T>, export: &[u8], kept: &Arc<T>) {
    let mut known = of.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(_, kept)| kept.strong_count() > 0);
    known.push((export.to_owned(), Arc::downgrade(kept)));
}

/// Slots begin at multiples of this: cuMemAlloc's own alignment, and more than the widest access needs.
const ALIGN_BYTES: u64 = 256;
/// device UUID, then the handle, or descriptor and length of the mapping
const UUID_BYTES: usize = 16;

impl CudaMemory {
    pub(crate) fn create(gpu: &Gpu, share: Share, what: &str, slots: u32, slot_bytes: u64) -> Result<Self, PoolError> {
        let bytes = total_bytes(slots, slot_bytes)
            .ok_or_else(|| CudaError::misuse(what, format!("no GPU has {slots} slots of {slot_bytes} B")))?;
        let what = format!("{slots} slots of pool {what}");
        let memory = Arc::new(match share {
            Share::Ipc => DeviceMemory::allocate(gpu, bytes, &what)?,
            Share::Descriptor => {
                // Consumers take the descriptor from this process, which some systems (Yama) let only a debugger do;
                // the kernel goes on asking for the same user. One that has no Yama refuses the call, and needs none.
                let _ = rustix::process::set_ptracer(PTracer::Any);
                DeviceMemory::allocate_shareable(gpu, bytes, &what)?
            }
        });
        let ready = |_| -> Result<Ready, CudaError> {
            let event = Arc::new(Event::interprocess(gpu)?);
            let handle = event.export()?;
            keep(&OWN_EVENTS, &handle, &event);
            Ok(Ready { event, handle })
        };
        let ready = (0..slots).map(ready).collect::<Result<_, _>>()?;
        if share == Share::Ipc {
            memory.export_ipc()?; // so that it can be again
        }
        let this = Self { memory, share, slot_bytes, ready, opened: Mutex::default(), copies: OnceLock::new() };
        keep(&OWN_MEMORY, &this.export(), &this.memory);
        Ok(this)
    }

    pub(crate) fn is_on(&self, gpu: &Gpu, share: Share) -> bool {
        self.share == share && self.memory.gpu().uuid() == gpu.uuid()
    }

    pub(crate) fn kind(&self) -> u32 {
        self.share.kind()
    }

    pub(crate) fn export(&self) -> Vec<u8> {
        let mut export = self.memory.gpu().uuid().to_vec();
        match self.memory.descriptor() {
            Some(fd) => {
                export.extend((fd.as_raw_fd() as u32).to_le_bytes());
                export.extend(self.memory.mapped_bytes().to_le_bytes());
            }
            // it was in `create`
            None => export.extend(self.memory.export_ipc().unwrap_or([0; 64])),
        }
        export
    }

    pub(crate) fn open(
        kind: u32,
        pool: u128,
        pid: u32,
        export: &[u8],
        slots: u32,
        slot_bytes: u64,
    ) -> Result<Self, PoolError> {
        let not = |why: String| PoolError::NotAPool { pool, pid, fd: 0, why };
        let share = [Share::Ipc, Share::Descriptor]
            .into_iter()
            .find(|share| share.kind() == kind)
            .ok_or_else(|| not(format!("its slots are memory of kind {kind}, which this build does not know")))?;
        let bytes = total_bytes(slots, slot_bytes)
            .ok_or_else(|| not(format!("it claims {slots} slots of {slot_bytes} bytes")))?;
        let short = || not(format!("its memory is described by {} bytes", export.len()));
        let here = |memory| {
            let (ready, opened, copies) = (Vec::new(), Mutex::default(), OnceLock::new());
            Self { memory, share, slot_bytes, ready, opened, copies }
        };
        // a process's exports differ from each other, not from those of others
        if pid == std::process::id()
            && let Some(memory) = own(&OWN_MEMORY, export)
        {
            return Ok(here(memory));
        }
        let (uuid, handle) = export.split_at_checked(UUID_BYTES).ok_or_else(short)?;
        let gpu = gpu_of(uuid)?;
        let memory = match share {
            Share::Ipc => {
                let handle = <[u8; 64]>::try_from(handle).map_err(|_| short())?;
                Arc::new(DeviceMemory::open_ipc(&gpu, handle, bytes)?)
            }
            Share::Descriptor => {
                let (fd, mapped) = handle.split_at_checked(4).ok_or_else(short)?;
                let fd = u32::from_le_bytes(fd.try_into().map_err(|_| short())?);
                let mapped_bytes = u64::from_le_bytes(mapped.try_into().map_err(|_| short())?);
                if mapped_bytes < bytes || mapped_bytes > bytes + (1 << 30) {
                    return Err(not(format!("it claims a mapping of {mapped_bytes} bytes for {bytes}")));
                }
                let fail = |e: rustix::io::Errno| PoolError::Open { pool, pid, source: e.into() };
                let owner = Pid::from_raw(pid as i32).ok_or_else(|| not("its process has no number".into()))?;
                let owner = rustix::process::pidfd_open(owner, PidfdFlags::empty()).map_err(fail)?;
                let fd = rustix::process::pidfd_getfd(&owner, fd as i32, PidfdGetfdFlags::empty()).map_err(fail)?;
                Arc::new(DeviceMemory::open_descriptor(&gpu, fd, bytes, mapped_bytes)?)
            }
        };
        Ok(here(memory))
    }

    /// A slot.
    pub(crate) fn span(&self, slot: u32) -> Span {
        let stride_bytes = self.slot_bytes.next_multiple_of(ALIGN_BYTES);
        self.memory.span().part(u64::from(slot) * stride_bytes, self.slot_bytes)
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        self.memory.gpu()
    }

    /// What is queued in `stream` from here on begins after what was last written to the slot is complete.
    pub(crate) fn follow(&self, slot: u32, stream: &Stream) -> Result<(), CudaError> {
        stream.wait(&self.ready[slot as usize].event)
    }

    /// What was queued in `stream` so far completes the slot; returned is what a consumer waits for.
    pub(crate) fn mark_ready(&self, slot: u32, stream: &Stream) -> Result<[u8; 64], CudaError> {
        let Ready { event, handle } = &self.ready[slot as usize];
        stream.record(event)?;
        Ok(*handle)
    }

    /// What is queued in `stream` from here on begins after `fence`.
    pub(crate) fn wait(&self, fence: &Fence, stream: &Stream) -> Result<(), CudaError> {
        let Fence::CudaEvent(handle) = fence else { return Ok(()) };
        let handle = <[u8; 64]>::try_from(handle.as_slice()).map_err(|_| {
            CudaError::misuse("a frame's fence", format!("its event is named by {} bytes, not 64", handle.len()))
        })?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = opened.get(&handle) {
            return stream.wait(event);
        }
        let event = match own(&OWN_EVENTS, &handle) {
            Some(event) => event,
            None => Arc::new(Event::open(self.gpu(), handle)?),
        };
        stream.wait(&event)?;
        // as many as the pool has slots; a producer that names more at every frame must not fill our memory
        if opened.len() >= 2 * crate::control::MAX_SLOTS {
            opened.clear();
        }
        opened.insert(handle, event);
        Ok(())
    }

    fn copies(&self) -> Result<&Stream, CudaError> {
        if let Some(stream) = self.copies.get() {
            return Ok(stream);
        }
        let stream = Stream::new(self.gpu())?;
        Ok(self.copies.get_or_init(|| stream))
    }

    /// Copies bytes into the start of a slot and waits for it.
    pub(crate) fn write(&self, slot: u32, bytes: &[u8]) -> Result<(), CudaError> {
        self.copies()?.upload(bytes, self.span(slot).part(0, bytes.len() as u64))
    }

    /// Waits, in this thread, until the event of `fence` is complete.
    pub(crate) fn complete(&self, fence: &Fence) -> Result<(), CudaError> {
        self.wait(fence, self.copies()?)?;
        self.copies()?.synchronize()
    }

    /// Copies the first `len` bytes of a slot out.
    pub(crate) fn read(&self, slot: u32, fence: &Fence, len: usize) -> Result<Vec<u8>, CudaError> {
        let mut bytes = vec![0; len];
        self.wait(fence, self.copies()?)?;
        self.copies()?.download(self.span(slot).part(0, len as u64), &mut bytes)?;
        Ok(bytes)
    }
}

fn total_bytes(slots: u32, slot_bytes: u64) -> Option<u64> {
    slot_bytes.checked_next_multiple_of(ALIGN_BYTES)?.checked_mul(u64::from(slots)).filter(|&b| b <= 1 << 46)
}

/// The device of this process that has the UUID; each is opened once.
fn gpu_of(uuid: &[u8]) -> Result<Gpu, PoolError> {
    static GPUS: Mutex<Vec<Gpu>> = Mutex::new(Vec::new());
    let mut known = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = known.iter().find(|gpu| gpu.uuid() == uuid) {
        return Ok(gpu.clone());
    }
    for ordinal in 0..millrace_cuda::device_count()? {
        let gpu = Gpu::open(ordinal)?;
        if gpu.uuid() == uuid {
            known.push(gpu.clone());
            return Ok(gpu);
        }
    }
    let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    Err(CudaError::misuse(
        "the pool's memory",
        format!("it lies on the GPU with UUID {uuid}, which CUDA_VISIBLE_DEVICES hides from this node"),
    )
    .into())
}
