//! The kinds of memory that a suite is instantiated for.
//!
//! Those of a GPU are on trial where `MILLRACE_GPU=1` asks for one (and fail where there is none), and in the child
//! process that [`run_on_the_stand_in`] starts.

use millrace_cuda::Gpu;
use millrace_pool::{Place, Share};

pub(crate) trait Kind {
    #[allow(dead_code, reason = "told to child processes, which not every suite has")]
    const NAME: &'static str;
    /// Files that a pool has in its process: the control block, and host memory.
    const FILES: usize;
    fn place() -> Place;
    fn is_on_trial() -> bool {
        std::env::var_os("MILLRACE_GPU").is_some() || std::env::var_os(STAND_IN).is_some()
    }
}

const STAND_IN: &str = "MILLRACE_ON_THE_STAND_IN";

pub(crate) struct Host;
pub(crate) struct CudaIpc;
pub(crate) struct CudaDescriptor;

impl Kind for Host {
    const NAME: &'static str = "host";
    const FILES: usize = 2;
    fn place() -> Place {
        Place::Host
    }
    fn is_on_trial() -> bool {
        true
    }
}

impl Kind for CudaIpc {
    const NAME: &'static str = "cuda_ipc";
    const FILES: usize = 1;
    fn place() -> Place {
        Place::Cuda(gpu(), Share::Ipc)
    }
}

impl Kind for CudaDescriptor {
    const NAME: &'static str = "cuda_descriptor";
    const FILES: usize = 1;
    fn place() -> Place {
        Place::Cuda(gpu(), Share::Descriptor)
    }
}

fn gpu() -> Gpu {
    Gpu::open(0).unwrap_or_else(|e| panic!("a GPU was asked for: {e}"))
}

/// Runs the tests of this binary whose names begin with `prefix` in a process whose driver is the stand-in.
pub(crate) fn run_on_the_stand_in(prefix: &str) {
    if std::env::var_os("MILLRACE_GPU").is_some() || std::env::var_os(STAND_IN).is_some() {
        return; // the tests themselves run beside this one
    }
    let folder = millrace_cuda_driver_folder::folder();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .arg(prefix)
        .env("LD_LIBRARY_PATH", folder)
        .env(STAND_IN, "1")
        .status()
        .unwrap();
    assert!(status.success(), "on the stand-in: {status}");
}
