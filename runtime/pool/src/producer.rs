//! The producer's side of a pool.

use crate::bell::{self, Bell};
use crate::control::{self, Block, EXPECTED, FREE, FREED, LAYOUT, LEFT, MAGIC, MAX_CONSUMERS, MAX_SLOTS, NAME_BYTES};
use crate::letterbox;
use crate::map::{Mapping, shared_file};
use crate::memory::{Memory, MemorySpec};
use crate::process::Owner;
use crate::protocol::{self, Writing, load_bytes, store_bytes};
use crate::{Flow, PoolError};
use millrace_cuda::{CudaError, Span, Stream};
use millrace_frame::{Fence, SlotRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

/// The properties of a new pool.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// `node/port`, for errors and `/proc/<pid>/maps`.
    pub name: String,
    /// Slots, 2 to [`MAX_SLOTS`].
    pub slots: u32,
    /// Size of a slot.
    pub slot_bytes: u64,
    /// Who waits for whom.
    pub flow: Flow,
    /// Which run of its node makes the pool.
    pub incarnation: u64,
    /// The consumers that the graph names, as `node/input`: in lossless flow the producer waits for each from the first
    /// frame on, also while it has not attached yet.
    pub consumers: Vec<String>,
    /// Where the slots are allocated.
    pub memory: MemorySpec,
}

/// A pool, in the process that made it.
#[derive(Debug)]
pub struct Pool {
    storage: Arc<PoolStorage>,
    name: String,
    flow: Flow,
    pool: u128,
    incarnation: u64,
    pid: u32,
    /// The bell's count before the last look at slots and cursors.
    rings_seen: AtomicU32,
    /// The bells of the consumers, by place.
    bells: Vec<ConsumerBell>,
}

/// The bell of one consumer, as the control block had it when the producer last read it.
#[derive(Debug, Default)]
struct ConsumerBell {
    owner: u64,
    fd: u64,
    bell: Option<Bell>,
}

impl ConsumerBell {
    /// The consumer has a bell, and may still send it to this process.
    fn awaits_post(&self) -> bool {
        self.bell.is_none() && self.fd > 0 && letterbox::is_there()
    }
}

/// The mappings that a [`Pool`] and its unpublished slots share.
#[derive(Debug)]
struct PoolStorage {
    control: Mapping,
    memory: Memory,
    slot_bytes: u64,
    /// The producer's note on each slot's bytes.
    contents: Box<[AtomicU64]>,
}

impl PoolStorage {
    fn block(&self) -> &Block {
        self.control.block()
    }
}

impl Pool {
    /// Makes a pool.
    ///
    /// # Errors
    /// A specification that no pool can fulfil; no memory; no `/proc`.
    pub fn create(spec: &PoolSpec) -> Result<Self, PoolError> {
        let name = spec.name.clone();
        if !(2..=MAX_SLOTS as u32).contains(&spec.slots) {
            return Err(PoolError::Slots { name, slots: spec.slots });
        }
        if spec.slot_bytes == 0 {
            return Err(PoolError::SlotBytes { name });
        }
        if spec.consumers.len() > MAX_CONSUMERS {
            return Err(PoolError::Consumers { name, count: spec.consumers.len() });
        }
        for (i, consumer) in spec.consumers.iter().enumerate() {
            // the first would occupy the place of the second, and a lossless producer would wait for the second for ever
            if spec.consumers[..i].iter().any(|other| clipped(other) == clipped(consumer)) {
                return Err(PoolError::SameName { name, consumer: consumer.clone() });
            }
        }
        let me = Owner::me().map_err(|source| PoolError::Proc { source })?;
        let memory = Memory::create(&spec.memory, &format!("millrace {name}"), spec.slots, spec.slot_bytes)?;
        let what = format!("millrace {name} control");
        let bytes = size_of::<Block>() as u64;
        let control = Mapping::new(&what, shared_file(&what, bytes)?, bytes, true)?;
        let pool = random_id(me);

        let block = control.block();
        let h = &block.header;
        h.layout.store(LAYOUT, Ordering::Relaxed);
        h.slots.store(spec.slots, Ordering::Relaxed);
        h.slot_bytes.store(spec.slot_bytes, Ordering::Relaxed);
        h.pool[0].store((pool >> 64) as u64, Ordering::Relaxed);
        h.pool[1].store(pool as u64, Ordering::Relaxed);
        h.incarnation.store(spec.incarnation, Ordering::Relaxed);
        h.producer.store(me.0, Ordering::Relaxed);
        h.flow.store(u32::from(spec.flow == Flow::Lossless), Ordering::Relaxed);
        h.memory_kind.store(memory.kind(), Ordering::Relaxed);
        let export = memory.export();
        store_bytes(&h.export, &export);
        h.export_len.store(export.len() as u32, Ordering::Relaxed);
        for (place, name) in block.consumers.iter().zip(&spec.consumers) {
            store_bytes(&place.name, clipped(name));
            place.owner.store(EXPECTED, Ordering::Relaxed);
        }
        h.magic.store(MAGIC, Ordering::Release);
        let (flow, incarnation) = (spec.flow, spec.incarnation);
        let contents = (0..spec.slots).map(|_| AtomicU64::new(0)).collect();
        let storage = Arc::new(PoolStorage { control, memory, slot_bytes: spec.slot_bytes, contents });
        let bells = (0..MAX_CONSUMERS).map(|_| ConsumerBell::default()).collect();
        Ok(Self { storage, name, flow, pool, incarnation, pid: me.pid(), rings_seen: AtomicU32::new(0), bells })
    }

    /// `node/port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of a slot.
    pub fn slot_bytes(&self) -> u64 {
        self.storage.slot_bytes
    }

    /// Whether its slots are in memory of this kind.
    pub fn is_in(&self, memory: &MemorySpec) -> bool {
        memory.is_of(&self.storage.memory)
    }

    /// Number of slots.
    pub fn slots(&self) -> u32 {
        self.storage.contents.len() as u32
    }

    /// Acquires a slot to write. Returns `None` if every slot is leased or being written. In live flow the caller then loses
    /// its frame; in lossless flow it [`wait`](Self::wait)s and tries again.
    pub fn acquire(&mut self) -> Option<Slot> {
        self.listen();
        let writing = protocol::acquire(self.storage.block(), self.slots())?;
        Some(Slot { storage: self.storage.clone(), writing, published: false })
    }

    /// Sleeps until a consumer does something (gives a lease back, moves its cursor, attaches or leaves), for `limit` at
    /// most. It returns at once if that has happened since the last [`acquire`](Self::acquire) or
    /// [`behind`](Self::behind). A consumer's death rings no bell; [`reap`](Self::reap) finds it.
    pub fn wait(&self, limit: Duration) {
        let block = self.storage.block();
        bell::wait(&block.header.bell, self.rings_seen.load(Ordering::Relaxed), limit);
    }

    fn listen(&self) {
        self.rings_seen.store(protocol::ring_count(&self.storage.block().header.bell), Ordering::Relaxed);
    }

    /// Publishes a written slot.
    ///
    /// # Errors
    /// [`PoolError::Description`] when `item` does not fit, [`PoolError::ForeignSlot`] when the slot is of another pool.
    /// In both cases the slot is given back.
    pub fn publish(&mut self, mut slot: Slot, item: &[u8]) -> Result<SlotRef, PoolError> {
        if !Arc::ptr_eq(&slot.storage, &self.storage) {
            return Err(PoolError::ForeignSlot { name: self.name.clone() });
        }
        if item.len() > control::ITEM_BYTES {
            return Err(PoolError::Description { found: item.len() });
        }
        slot.published = true;
        let Writing { slot, generation } = slot.writing;
        let ticket = protocol::publish(self.storage.block(), self.flow, Writing { slot, generation }, item);
        Ok(SlotRef { ticket, slot, generation, ..self.locator() })
    }

    /// Rings the bells of the consumers, after a publication or so that they check their pools. Returns `true` if some
    /// consumer has no bell that this process can ring, or has not attached yet: the caller then has to notify that
    /// consumer by a message. A dead consumer keeps its bell until its place is cleared, so the caller also has to send
    /// such messages now and then when this returns `false`.
    pub fn ring(&mut self) -> bool {
        let mut deaf = false;
        for (place, consumer_bell) in self.storage.block().consumers.iter().zip(&mut self.bells) {
            let owner = place.owner.load(Ordering::Acquire);
            if matches!(owner, FREE | LEFT) {
                *consumer_bell = ConsumerBell::default();
                continue;
            }
            let fd = place.bell.load(Ordering::Acquire);
            if (consumer_bell.owner, consumer_bell.fd) != (owner, fd) || consumer_bell.awaits_post() {
                let bell = u32::try_from(fd).ok().and_then(|fd| fd.checked_sub(1));
                *consumer_bell = ConsumerBell { owner, fd, bell: bell.and_then(|fd| Bell::open(Owner(owner), fd)) };
            }
            match &consumer_bell.bell {
                Some(bell) => bell.ring(),
                None => deaf = true,
            }
        }
        deaf
    }

    /// The pool's location, for a doorbell that announces no new frame. Its ticket is the newest.
    pub fn locator(&self) -> SlotRef {
        SlotRef {
            pool: self.pool,
            owner_pid: self.pid,
            owner_fd: self.storage.control.raw_fd(),
            incarnation: self.incarnation,
            ticket: self.published().saturating_sub(1),
            slot: 0,
            generation: 0,
        }
    }

    /// Tickets published so far.
    pub fn published(&self) -> u64 {
        self.storage.block().header.head.load(Ordering::Relaxed)
    }

    /// Clears the leases of consumers that have left or died, and returns the names of those that died. In lossless flow a
    /// dead consumer keeps its place for a successor, which inherits its unfinished frames; `give_up` ends that.
    pub fn reap(&mut self, give_up: bool) -> Vec<String> {
        let block = self.storage.block();
        let mut dead = Vec::new();
        for (index, place) in block.consumers.iter().enumerate() {
            let owner = place.owner.load(Ordering::Acquire);
            match owner {
                FREE | EXPECTED => {}
                LEFT => {
                    protocol::reap(block, self.flow, index, LEFT);
                }
                owner if Owner(owner).is_dead() => {
                    let leave = self.flow == Flow::Lossless && !give_up;
                    if leave || protocol::reap(block, self.flow, index, owner) {
                        dead.push(name_of(place));
                    }
                }
                _ => {}
            }
        }
        dead
    }

    /// Consumers that have not finished all published frames, as `(name, tickets behind, attached)`.
    pub fn behind(&self) -> Vec<(String, u64, bool)> {
        self.listen();
        let head = self.published();
        let owes = |place: &control::Consumer| {
            let owner = place.owner.load(Ordering::Acquire);
            let behind = head.saturating_sub(place.cursor.load(Ordering::Acquire));
            (!matches!(owner, FREE | LEFT) && behind > 0).then(|| (name_of(place), behind, owner != EXPECTED))
        };
        self.storage.block().consumers.iter().filter_map(owes).collect()
    }

    /// Its slots are in a GPU's memory.
    pub fn is_on_gpu(&self) -> bool {
        matches!(self.storage.memory, Memory::Cuda(_))
    }

    /// How often consumers have done something: given a lease back, moved their cursor, attached or left.
    pub fn activity(&self) -> u32 {
        protocol::ring_count(&self.storage.block().header.bell)
    }

    /// Whether another living process has the slots' memory open. (Readers in this process share the mapping itself.)
    pub fn is_mapped(&self) -> bool {
        let others = |owner| !matches!(owner, FREE | LEFT | EXPECTED) && Owner(owner).pid() != std::process::id();
        let mut owners = self.storage.block().consumers.iter().map(|place| place.owner.load(Ordering::Acquire));
        owners.any(|owner| others(owner) && !Owner(owner).is_dead())
    }

    /// The consumers that the graph names and that have not attached yet.
    pub fn expected(&self) -> Vec<String> {
        self.listen();
        let places = self.storage.block().consumers.iter();
        places.filter(|place| place.owner.load(Ordering::Acquire) == EXPECTED).map(name_of).collect()
    }

    /// States that no further ticket will be published. Consumers read the frames that are left in the pool and then see
    /// its end. Dropping the pool does the same, but then only consumers that have the pool open can still read.
    pub fn close(&mut self) {
        self.storage.block().header.closed.store(1, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.storage.block().header.closed.store(FREED, Ordering::Release);
        // Pairs with the fence in `Reader::open`: either that consumer sees FREED and does not map the memory, or it is
        // seen here as attached.
        fence(Ordering::SeqCst);
        if matches!(self.storage.memory, Memory::Cuda(_)) && self.is_mapped() {
            // Freeing memory that another process has opened is undefined behaviour (cuIpcCloseMemHandle's page). The end
            // of this process gives it back.
            tracing::debug!("pool {}: dropped while consumers have it open; its memory stays", self.name);
            std::mem::forget(self.storage.clone());
        }
    }
}

/// A slot that this process writes. If it is dropped before it is published, it goes back to the pool.
#[derive(Debug)]
pub struct Slot {
    storage: Arc<PoolStorage>,
    writing: Writing,
    published: bool,
}

#[allow(unsafe_code, reason = "the slot's writing state is what `HostMemory::slot_mut` asks for")]
impl Slot {
    /// Copies bytes into the start of the slot, in host or GPU memory, and waits until they are there. For tests and
    /// small records.
    ///
    /// # Errors
    /// Those of the GPU.
    ///
    /// # Panics
    /// When they are more than the slot has.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CudaError> {
        match &self.storage.memory {
            Memory::Host(_) => self.bytes_mut()[..bytes.len()].copy_from_slice(bytes),
            Memory::Cuda(memory) => memory.write(self.writing.slot, bytes)?,
        }
        Ok(())
    }

    /// The bytes of a slot in host memory. They still have the contents of an earlier frame.
    ///
    /// # Panics
    /// When the slot is in a GPU's memory.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let Memory::Host(memory) = &self.storage.memory else { panic!("the pool was made in host memory") };
        // SAFETY: `self` exists only in the slot's writing state, in the process that created the memory, and
        // `&mut self` excludes a second slice while this one lives.
        unsafe { memory.slot_mut(self.writing.slot) }
    }

    /// Takes the number that this process gave to the slot's bytes when it wrote them last, by
    /// [`set_contents`](Self::set_contents); 0 if it gave none, as in a new pool. The call resets the number to 0, so a slot
    /// that is then left half written has none. Consumers write to no slot, so the number is still right after they have
    /// read it.
    pub fn take_contents(&mut self) -> u64 {
        self.storage.contents[self.writing.slot as usize].swap(0, Ordering::Relaxed)
    }

    /// Notes the contents of the slot, as a number that the producer chooses.
    pub fn set_contents(&mut self, contents: u64) {
        self.storage.contents[self.writing.slot as usize].store(contents, Ordering::Relaxed);
    }

    /// The slot's address on its GPU. Work on it follows [`follow`](Self::follow), and [`mark_ready`](Self::mark_ready)
    /// follows the work.
    pub fn span(&self) -> Option<Span> {
        match &self.storage.memory {
            Memory::Host(_) => None,
            Memory::Cuda(memory) => Some(memory.span(self.writing.slot)),
        }
    }

    /// Work that is queued in `stream` from here on begins after the slot's previous frame is complete. Another stream may
    /// still be writing that frame, if nobody has read it.
    ///
    /// # Errors
    /// Those of the GPU.
    pub fn follow(&self, stream: &Stream) -> Result<(), CudaError> {
        match &self.storage.memory {
            Memory::Host(_) => Ok(()),
            Memory::Cuda(memory) => memory.follow(self.writing.slot, stream),
        }
    }

    /// Marks the slot as complete when all work that is queued in `stream` so far is done.
    ///
    /// # Errors
    /// Those of the GPU.
    pub fn mark_ready(&self, stream: &Stream) -> Result<Fence, CudaError> {
        match &self.storage.memory {
            Memory::Host(_) => Ok(Fence::Complete),
            Memory::Cuda(memory) => Ok(Fence::CudaEvent(memory.mark_ready(self.writing.slot, stream)?.to_vec())),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.published {
            protocol::abandon(self.storage.block(), self.writing);
        }
    }
}

fn name_of(place: &control::Consumer) -> String {
    let bytes = load_bytes(&place.name, NAME_BYTES);
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

/// The bytes of a consumer's name that the control block has room for.
pub(crate) fn clipped(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(NAME_BYTES)]
}

fn random_id(me: Owner) -> u128 {
    // std seeds its hasher from the system's randomness once a thread and counts up from there; the pid and the clock
    // keep two threads and two processes apart
    use std::hash::{BuildHasher, Hasher, RandomState};
    let half = |salt: u64| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(salt ^ me.0);
        if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            hasher.write_u128(now.as_nanos());
        }
        hasher.finish()
    };
    u128::from(half(1)) << 64 | u128::from(half(2))
}
