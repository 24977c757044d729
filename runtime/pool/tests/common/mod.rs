//! The kinds of memory that a suite is instantiated for.
//!
//! Those of a GPU are on trial where `MILLRACE_GPU=1` asks for one (and fail where there is none), and in the child
//! process whose driver is the stand-in.

use millrace_cuda::Gpu;
use millrace_pool::{MemorySpec, Share};

pub(crate) trait Kind {
    #[allow(dead_code, reason = "told to child processes, which not every suite has")]
    const NAME: &'static str;
    /// Files that a pool has in its process: the control block, and host memory.
    const FILES: usize;
    fn memory() -> MemorySpec;
    fn is_on_trial() -> bool {
        millrace_cuda_driver_folder::on_trial()
    }
}

pub(crate) struct Host;
pub(crate) struct CudaIpc;
pub(crate) struct CudaDescriptor;

impl Kind for Host {
    const NAME: &'static str = "host";
    const FILES: usize = 2;
    fn memory() -> MemorySpec {
        MemorySpec::Host
    }
    fn is_on_trial() -> bool {
        true
    }
}

impl Kind for CudaIpc {
    const NAME: &'static str = "cuda_ipc";
    const FILES: usize = 1;
    fn memory() -> MemorySpec {
        MemorySpec::Cuda(gpu(), Share::Ipc)
    }
}

impl Kind for CudaDescriptor {
    const NAME: &'static str = "cuda_descriptor";
    const FILES: usize = 1;
    fn memory() -> MemorySpec {
        MemorySpec::Cuda(gpu(), Share::Descriptor)
    }
}

fn gpu() -> Gpu {
    Gpu::open(0).unwrap_or_else(|e| panic!("a GPU was asked for: {e}"))
}
