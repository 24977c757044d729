//! The consumer's side of a pool.

use crate::bell::{self, Bell};
use crate::control::{self, Block, EXPORT_BYTES, FREE, FREED, LAYOUT, LEFT, MAGIC, MAX_SLOTS, NAME_BYTES};
use crate::map::{Mapping, open_shared};
use crate::memory::Memory;
use crate::process::Owner;
use crate::producer::clipped;
use crate::protocol::{self, Attached, Taken, Writing, load_bytes, store_bytes};
use crate::{Flow, PoolError};
use millrace_cuda::{CudaError, Gpu, Span, Stream};
use millrace_frame::{Fence, SlotRef};
use std::collections::BTreeSet;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

/// A consumer in live flow looks only at tickets that are at most this far behind the newest, and at this many in one call.
/// Older tickets are lost, whatever the control block says.
const FAR: u64 = 1 << 16;
/// No consumer is ever this far behind: a control block that says so was overwritten.
const IMPOSSIBLE: u64 = 1 << 40;
/// The most attempts to lease the newest ticket, if it is overwritten each time.
const LOOKS: u32 = 64;

/// A pool, in a process that reads it. It detaches when it is dropped together with its last lease.
#[derive(Debug)]
pub struct Reader {
    attachment: Arc<Attachment>,
    next: u64,
    /// The ticket that [`newest`](Self::newest) returned last.
    newest: Option<u64>,
    attached: Attached,
    /// The control block has an impossible value, so it is not read any more.
    broken: bool,
}

/// What a [`Reader`] and its leases share: the mappings and the consumer's place. The last drop detaches the consumer.
#[derive(Debug)]
struct Attachment {
    control: Mapping,
    /// Unmapped before the place is left, because a producer frees memory that no consumer has mapped.
    memory: Option<Memory>,
    index: usize,
    me: Owner,
    pool: u128,
    flow: Flow,
    /// The values of the control block that were checked when the pool was opened. The block itself may change later.
    slots: u32,
    slot_bytes: u64,
    /// The tickets that are leased, and the next ticket to look at. The lowest of all is the cursor.
    open: Mutex<(BTreeSet<u64>, u64)>,
}

/// The result of [`Reader::poll`] and [`Reader::newest`].
#[derive(Debug)]
pub enum PollResult {
    /// A frame.
    Frame(SlotLease),
    /// This ticket's frame was overwritten before it was read. Never in lossless flow.
    Gone(u64),
    /// No further frame is published yet.
    Empty,
    /// The pool has ended: no further frame will come.
    End,
}

impl Reader {
    /// Opens the pool that a doorbell names and attaches to it as `name`.
    pub fn open(at: &SlotRef, name: &str) -> Result<Self, PoolError> {
        let SlotRef { pool, owner_pid: pid, owner_fd: fd, .. } = *at;
        let bytes = size_of::<Block>() as u64;
        let control = Mapping::new("control block", open_shared(pool, pid, fd, bytes, true)?, bytes, true)?;
        let block = control.block();
        let h = &block.header;
        let not = |why: String| PoolError::NotAPool { pool, pid, fd, why };
        if h.magic.load(Ordering::Acquire) != MAGIC {
            return Err(not("it does not begin with Millrace's magic number".into()));
        }
        let layout = h.layout.load(Ordering::Relaxed);
        if layout != LAYOUT {
            return Err(not(format!("its layout is {layout}, this build reads {LAYOUT}")));
        }
        let found = u128::from(h.pool[0].load(Ordering::Relaxed)) << 64 | u128::from(h.pool[1].load(Ordering::Relaxed));
        if found != pool {
            return Err(not(format!("it is pool {found:032x}, whose process took the descriptor over")));
        }
        let slots = h.slots.load(Ordering::Relaxed);
        let slot_bytes = h.slot_bytes.load(Ordering::Relaxed);
        let export_len = h.export_len.load(Ordering::Relaxed) as usize;
        let kind = h.memory_kind.load(Ordering::Relaxed);
        let possible = (1..=MAX_SLOTS as u32).contains(&slots) && slot_bytes > 0 && export_len <= EXPORT_BYTES;
        if !possible {
            return Err(not(format!(
                "it claims {slots} slots of {slot_bytes} bytes, memory of kind {kind}, an export of {export_len} bytes"
            )));
        }
        let export = load_bytes(&h.export, export_len);
        let flow = if h.flow.load(Ordering::Relaxed) == 1 { Flow::Lossless } else { Flow::Live };
        let me = Owner::me().map_err(|source| PoolError::Proc { source })?;
        let (index, attached) = find_place(block, flow, name, me, pool)?;
        let next = block.consumers[index].cursor.load(Ordering::Acquire);
        block.consumers[index].next.store(next, Ordering::Release);
        let open = Mutex::new((BTreeSet::new(), next));
        // From here on an error detaches, by the drop of `attachment`.
        let mut attachment = Attachment { control, memory: None, index, me, pool, flow, slots, slot_bytes, open };
        // Pairs with the fence in `Pool`'s drop: the producer frees memory only where it sees no consumer attached.
        fence(Ordering::SeqCst);
        if attachment.block().header.closed.load(Ordering::Acquire) == FREED {
            return Err(PoolError::Ended { pool, pid });
        }
        let memory = Memory::open(kind, pool, pid, &export, slots, slot_bytes);
        // a producer in this process frees its memory without checking who is attached
        if memory.is_err() && attachment.block().header.closed.load(Ordering::Acquire) == FREED {
            return Err(PoolError::Ended { pool, pid });
        }
        attachment.memory = Some(memory?);
        ring(attachment.block());
        Ok(Self { attachment: Arc::new(attachment), next, newest: None, attached, broken: false })
    }

    /// The pool's id.
    pub fn pool(&self) -> u128 {
        self.attachment.pool
    }

    /// Who waits for whom.
    pub fn flow(&self) -> Flow {
        self.attachment.flow
    }

    /// Which run of its node made the pool.
    pub fn incarnation(&self) -> u64 {
        self.attachment.block().header.incarnation.load(Ordering::Relaxed)
    }

    /// Whether this process continues where a dead process with the same name stopped.
    pub fn attached(&self) -> Attached {
        self.attached
    }

    /// Size of a slot.
    pub fn slot_bytes(&self) -> u64 {
        self.attachment.slot_bytes
    }

    /// Number of slots.
    pub fn slots(&self) -> u32 {
        self.attachment.slots
    }

    /// Whether the process that made the pool has ended. The frames that it had published can still be read. The pool is
    /// at its end when [`pending`](Self::pending) is 0 *after* this was true.
    pub fn producer_is_dead(&self) -> bool {
        Owner(self.attachment.block().header.producer.load(Ordering::Relaxed)).is_dead()
    }

    /// Tickets published and not looked at yet.
    pub fn pending(&self) -> u64 {
        let pending = self.attachment.block().header.head.load(Ordering::Acquire).saturating_sub(self.next);
        if self.broken { 0 } else { pending.min(IMPOSSIBLE) }
    }

    /// Whether the producer publishes no more, or the control block has an impossible value.
    pub fn is_closed(&self) -> bool {
        self.broken || self.attachment.block().header.closed.load(Ordering::Acquire) != 0
    }

    /// In live flow, skips the tickets that are too old to be looked at, and returns their number.
    pub fn pass_over(&mut self) -> u64 {
        self.check();
        let old = self.pending().saturating_sub(FAR);
        if self.attachment.flow == Flow::Lossless || old == 0 {
            return 0;
        }
        self.next += old;
        self.attachment.moved(|_, next| *next += old);
        old
    }

    /// Leaves a pool whose control block was overwritten.
    fn check(&mut self) {
        if !self.broken && self.pending() == IMPOSSIBLE {
            self.broken = true;
            let producer = Owner(self.attachment.block().header.producer.load(Ordering::Relaxed)).pid();
            tracing::error!(
                "the control block of pool {:032x} of process {producer} was overwritten: its head is further ahead than any \
                 producer comes; the pool is read no more",
                self.attachment.pool
            );
        }
    }

    /// The newest publication, also one from before this consumer attached. Returns [`PollResult::Empty`] if it was returned
    /// already. For pools in live flow whose publications replace each other.
    pub fn newest(&mut self) -> PollResult {
        // a further attempt means that there was a newer publication, which rings again
        for _ in 0..LOOKS {
            let block = self.attachment.block();
            let closed = self.is_closed();
            let head = block.header.head.load(Ordering::Acquire);
            let Some(ticket) = head.checked_sub(1).filter(|ticket| self.newest != Some(*ticket)) else {
                return if closed { PollResult::End } else { PollResult::Empty };
            };
            // The frame may be overwritten between the two steps. Then the head has moved on.
            if let Taken::Lease(writing, item) = self.attachment.take(ticket) {
                self.newest = Some(ticket);
                self.next = head;
                self.attachment.moved(|open, next| {
                    *next = head;
                    open.insert(ticket);
                });
                let attachment = self.attachment.clone();
                return PollResult::Frame(SlotLease {
                    inner: Arc::new(LeasedSlot { attachment, ticket, writing, item }),
                });
            }
        }
        PollResult::Empty
    }

    /// From here on the producer rings `bell` at each publication.
    pub fn listen(&self, bell: &Bell) {
        // posted before the producer sees the bell in the consumer's place
        bell.post(self.attachment.me, Owner(self.attachment.block().header.producer.load(Ordering::Relaxed)));
        let place = &self.attachment.block().consumers[self.attachment.index];
        place.bell.store(u64::from(bell.raw_fd()) + 1, Ordering::Release);
    }

    /// Whether the pool's slots are in the memory of a GPU.
    pub fn is_on_gpu(&self) -> bool {
        matches!(self.attachment.memory(), Memory::Cuda(_))
    }

    /// The next ticket, in the order of publication. In lossless flow, skips tickets that are not reserved for this consumer.
    pub fn poll(&mut self) -> PollResult {
        self.check();
        for _ in 0..FAR {
            // Read before the head, so that frames that were published before the end are not lost.
            let closed = self.is_closed();
            let ticket = self.next;
            let taken = if self.broken { Taken::NotYet } else { self.attachment.take(ticket) };
            if taken == Taken::NotYet {
                return if closed { PollResult::End } else { PollResult::Empty };
            }
            self.next += 1;
            self.attachment.moved(|open, next| {
                *next = ticket + 1;
                if taken != Taken::Gone {
                    open.insert(ticket);
                }
            });
            if let Taken::Lease(writing, item) = taken {
                let attachment = self.attachment.clone();
                return PollResult::Frame(SlotLease {
                    inner: Arc::new(LeasedSlot { attachment, ticket, writing, item }),
                });
            }
            ring(self.attachment.block());
            if self.attachment.flow == Flow::Live {
                return PollResult::Gone(ticket);
            }
        }
        PollResult::Empty
    }
}

fn find_place(block: &Block, flow: Flow, name: &str, me: Owner, pool: u128) -> Result<(usize, Attached), PoolError> {
    let mut wanted = clipped(name).to_vec();
    wanted.resize(NAME_BYTES, 0);
    let named = |place: &control::Consumer| load_bytes(&place.name, NAME_BYTES) == wanted;
    let is_dead = |owner| Owner(owner).is_dead();
    // Two states last for microseconds: the producer clears a predecessor's leases, and another process has just claimed
    // a place that had our name and has not written its own name yet.
    let mut taken_by = control::REAPING;
    for _ in 0..1000 {
        let Some(index) = block.consumers.iter().position(named) else { break };
        match protocol::attach(block, flow, index, me.0, is_dead) {
            Ok(how) => return Ok((index, how)),
            Err(owner) => taken_by = owner,
        }
        std::thread::yield_now();
    }
    if taken_by != control::REAPING && block.consumers.iter().any(named) {
        return Err(PoolError::NameTaken { name: name.to_owned(), pool, pid: Owner(taken_by).pid() });
    }
    // a consumer that the graph does not name: any place that is free
    for (index, place) in block.consumers.iter().enumerate() {
        let nobodys = matches!(place.owner.load(Ordering::Acquire), FREE | LEFT);
        if nobodys && protocol::attach(block, flow, index, me.0, |_| false).is_ok() {
            store_bytes(&place.name, &wanted);
            return Ok((index, Attached::Fresh));
        }
    }
    Err(PoolError::Full { name: name.to_owned(), pool })
}

impl Attachment {
    fn block(&self) -> &Block {
        self.control.block()
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("taken by the last drop alone")
    }

    fn take(&self, ticket: u64) -> Taken {
        protocol::take(self.block(), self.slots, self.flow, self.index, ticket)
    }

    fn moved(&self, change: impl FnOnce(&mut BTreeSet<u64>, &mut u64)) {
        let mut guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, next) = &mut *guard;
        change(open, next);
        let cursor = open.first().copied().unwrap_or(*next).min(*next);
        let place = &self.block().consumers[self.index];
        place.next.store(*next, Ordering::Release);
        place.cursor.store(cursor, Ordering::Release);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        drop(self.memory.take());
        protocol::detach(self.control.block(), self.index, self.me.0);
        ring(self.control.block());
    }
}

fn ring(block: &Block) {
    bell::ring(&block.header.bell);
}

/// A lease on the slot of one frame: the right to read it. Clones share the lease, and the drop of the last clone gives it
/// back.
#[derive(Debug)]
pub struct SlotLease {
    inner: Arc<LeasedSlot>,
}

/// The slot that the clones of a [`SlotLease`] share.
#[derive(Debug)]
struct LeasedSlot {
    attachment: Arc<Attachment>,
    ticket: u64,
    writing: Writing,
    item: Vec<u8>,
}

impl Clone for SlotLease {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

#[allow(unsafe_code, reason = "a lease is what `HostMemory::slot` asks for")]
impl SlotLease {
    /// The description, as it was published.
    pub fn item(&self) -> &[u8] {
        &self.inner.item
    }

    /// The ticket.
    pub fn ticket(&self) -> u64 {
        self.inner.ticket
    }

    /// Size of the slot.
    pub fn slot_bytes(&self) -> u64 {
        self.inner.attachment.slot_bytes
    }

    /// Copies the first `len` bytes out, from host or GPU memory; on a GPU, after `fence`, which the frame's description names.
    /// This thread waits for the copy.
    ///
    /// # Errors
    /// Those of the GPU.
    ///
    /// # Panics
    /// When the slot has fewer bytes: the caller has to check the description against [`slot_bytes`](Self::slot_bytes).
    pub fn read(&self, fence: &Fence, len: usize) -> Result<Vec<u8>, CudaError> {
        match self.inner.attachment.memory() {
            Memory::Host(_) => Ok(self.bytes()[..len].to_vec()),
            Memory::Cuda(memory) => memory.read(self.inner.writing.slot, fence, len),
        }
    }

    /// Waits, in this thread, until the frame is complete by `fence`, which its description names. Accesses none of its bytes.
    ///
    /// # Errors
    /// Those of the GPU.
    pub fn complete(&self, fence: &Fence) -> Result<(), CudaError> {
        match self.inner.attachment.memory() {
            Memory::Host(_) => Ok(()),
            Memory::Cuda(memory) => memory.complete(fence),
        }
    }

    /// The bytes of a slot in host memory, in place.
    ///
    /// # Panics
    /// When they are in a GPU's memory.
    pub fn bytes(&self) -> &[u8] {
        let Memory::Host(memory) = self.inner.attachment.memory() else { panic!("asked for after `gpu` gave none") };
        // SAFETY: the lease is held for as long as `self`, and so the slice, lives.
        unsafe { memory.slot(self.inner.writing.slot) }
    }

    /// The GPU whose memory has the slot; `None` for host memory.
    pub fn gpu(&self) -> Option<&Gpu> {
        match self.inner.attachment.memory() {
            Memory::Host(_) => None,
            Memory::Cuda(memory) => Some(memory.gpu()),
        }
    }

    /// The slot's address on its GPU. Work that is queued in `stream` from here on begins after `fence`, which the
    /// frame's description names. The lease has to be held until that work is done.
    ///
    /// # Errors
    /// Those of the GPU; a slot in host memory.
    pub fn span(&self, fence: &Fence, stream: &Stream) -> Result<Span, CudaError> {
        let Memory::Cuda(memory) = self.inner.attachment.memory() else {
            return Err(CudaError::misuse("a frame", "it lies in host memory"));
        };
        memory.wait(fence, stream)?;
        Ok(memory.span(self.inner.writing.slot))
    }
}

impl Drop for LeasedSlot {
    fn drop(&mut self) {
        protocol::release(self.attachment.block(), self.attachment.index, self.writing.slot);
        self.attachment.moved(|open, _| {
            open.remove(&self.ticket);
        });
        ring(self.attachment.block());
    }
}
