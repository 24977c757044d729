//! Where slots lie: one trait, one implementation a kind of memory.

mod host;

pub use host::HostMemory;

use crate::PoolError;

/// N equal slots that one process writes and others read.
///
/// The contract with the protocol: a slot is written only through [`Memory::write`]-like methods by the process that
/// created it while it holds the slot's writing state, and read only under a lease.
pub trait Memory: std::fmt::Debug + Sized + Send + Sync + 'static {
    /// The number that stands in the control block for this kind.
    const KIND: u32;

    /// Allocates `slots` slots of `slot_bytes` each. `what` names the pool in errors.
    fn create(what: &str, slots: u32, slot_bytes: u64) -> Result<Self, PoolError>;

    /// What another process needs to open it, at most [`crate::control::EXPORT_BYTES`].
    fn export(&self) -> Vec<u8>;

    /// Opens in this process what process `pid` exported.
    fn open(pool: u128, pid: u32, export: &[u8], slots: u32, slot_bytes: u64) -> Result<Self, PoolError>;

    /// Copies bytes into the start of a slot. For tests and small records; nodes write where the frame is made.
    ///
    /// # Safety
    /// The slot is in the caller's writing state.
    #[allow(unsafe_code, reason = "the state of the slot is the caller's to prove")]
    unsafe fn write(&self, slot: u32, bytes: &[u8]);

    /// Copies the first `len` bytes of a slot out.
    ///
    /// # Safety
    /// The caller holds a lease on the slot, or its writing state.
    #[allow(unsafe_code, reason = "the lease is the caller's to prove")]
    unsafe fn read(&self, slot: u32, len: usize) -> Vec<u8>;
}
