//! A stand-in for the CUDA driver: its calls over host memory, between really separate processes, strict about misuse.
//!
//! A test tool for machines without a GPU, and nothing else. It says so in the device's name, and no figure ever comes
//! from it. Where the driver's manual says 'undefined', it prints `cuda stand-in: MISUSE: ...` and aborts.
//!
//! | behaviour | the real driver | here |
//! |---|---|---|
//! | order | streams run beside each other and beside the host | a thread for each stream |
//! | a handle opened in the process that exported it | error 201 | the same |
//! | memory opened twice in a process | the same address, counted | the same |
//! | a handle of freed memory, or of a dead process | error 1 | the same |
//! | memory of a process that died | readable while it is mapped | the same |
//! | memory freed while another process has it open | undefined | misuse |
//! | memory freed that queued work uses | `cuMemFree` waits, other calls are undefined | misuse |
//! | an event of a process that died | done | the same |
//! | an opened event whose owner destroyed it | undefined | misuse |
//! | a host function that calls the driver | error 800 or a deadlock | misuse |
//! | an address outside of every allocation | error 1, or 700 from a later call | misuse |
//! | fresh memory | whatever was there | bytes of `0xA5` |
//! | pageable memory in an asynchronous copy | staged | staged: read before the call returns, or waited for |
//! | a descriptor of physical memory | a file of `/dev/nvidiactl`, which has to be handed over or taken by `pidfd_getfd` | a memfd, which `/proc/PID/fd` would give too |
//! | host code that reads a device address | a fault | NOT noticed: kernels run on the same addresses |
//! | work that a graph records | all but what waits or allocates | host functions and fills; anything else ends the recording: error 900, then 901 |
//! | time between two events | the GPU's | the host's, of no meaning |
//!
//! | variable | effect |
//! |---|---|
//! | `MILLRACE_FAKE_CUDA_MEMORY_BYTES` | the device's memory; more is error 2 |
//! | `MILLRACE_FAKE_CUDA_NO_IPC=1` | memory has no legacy handles: error 801 |
//! | `MILLRACE_FAKE_CUDA_DELAY_US` | each queued operation takes at least so long |
//! | `MILLRACE_FAKE_CUDA_LENIENT=1` | misuse is printed and answered with an error; nothing aborts |
//! | `MILLRACE_FAKE_CUDA_LEAKS=1` | what lives at the end of the process is printed as `cuda stand-in: LEAK ...` |
#![allow(unsafe_code, reason = "a C library over shared memory")]
#![allow(non_snake_case, reason = "the driver's own names")]

mod backing;
mod code;
mod copy;
mod device;
mod event;
mod graph;
mod ipc;
mod memory;
mod module;
mod process;
mod state;
mod stream;
mod vmm;

/// Writes a result for the caller, as the driver does; no place for it is error 1.
///
/// # Safety
/// `place` is null or a place for a `T`.
unsafe fn put<T>(place: *mut T, value: T) -> Result<(), code::StatusCode> {
    if place.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: not null, and so a place for it: the caller's contract.
    unsafe { place.write(value) };
    Ok(())
}
