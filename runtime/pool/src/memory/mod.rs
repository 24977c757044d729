//! The memory of slots: host memory or a GPU's, shared by an IPC handle or by a file descriptor.

mod cuda;
mod host;

pub(crate) use cuda::CudaMemory;
pub use cuda::Share;
pub(crate) use host::HostMemory;

use crate::PoolError;
use millrace_cuda::Gpu;

/// Where the slots of a new pool are allocated.
#[derive(Clone, Debug, Default)]
pub enum MemorySpec {
    /// Host shared memory.
    #[default]
    Host,
    /// The memory of a GPU.
    Cuda(Gpu, Share),
}

impl MemorySpec {
    /// Whether slots of `memory` are of this kind.
    pub(crate) fn is_of(&self, memory: &Memory) -> bool {
        match (self, memory) {
            (Self::Host, Memory::Host(_)) => true,
            (Self::Cuda(gpu, share), Memory::Cuda(memory)) => memory.is_on(gpu, *share),
            _ => false,
        }
    }
}

/// N equal slots that one process writes and others read.
///
/// The contract with the protocol: a slot is written only by the process that created it while it holds the slot's
/// writing state, and read only under a lease.
#[derive(Debug)]
pub(crate) enum Memory {
    Host(HostMemory),
    Cuda(CudaMemory),
}

impl Memory {
    /// Allocates `slots` slots of `slot_bytes` each. `what` names the pool in errors.
    pub(crate) fn create(memory: &MemorySpec, what: &str, slots: u32, slot_bytes: u64) -> Result<Self, PoolError> {
        Ok(match memory {
            MemorySpec::Host => Self::Host(HostMemory::create(what, slots, slot_bytes)?),
            MemorySpec::Cuda(gpu, share) => Self::Cuda(CudaMemory::create(gpu, *share, what, slots, slot_bytes)?),
        })
    }

    /// The number of this kind in the control block.
    pub(crate) fn kind(&self) -> u32 {
        match self {
            Self::Host(_) => HostMemory::KIND,
            Self::Cuda(memory) => memory.kind(),
        }
    }

    /// What another process needs to open it, at most [`crate::control::EXPORT_BYTES`].
    pub(crate) fn export(&self) -> Vec<u8> {
        match self {
            Self::Host(memory) => memory.export(),
            Self::Cuda(memory) => memory.export(),
        }
    }

    /// Opens in this process what process `pid` exported.
    pub(crate) fn open(
        kind: u32,
        pool: u128,
        pid: u32,
        export: &[u8],
        slots: u32,
        slot_bytes: u64,
    ) -> Result<Self, PoolError> {
        match kind {
            HostMemory::KIND => HostMemory::open(pool, pid, export, slots, slot_bytes).map(Self::Host),
            _ => CudaMemory::open(kind, pool, pid, export, slots, slot_bytes).map(Self::Cuda),
        }
    }
}
