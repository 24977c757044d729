//! What both processes have in common: the arms, the kernels that stamp, the clocks.
#![allow(unsafe_code, reason = "launches of the example's own kernels")]

use millrace_cuda::{CudaError, Function, Gpu, Grid, Module, PinnedMemory, Span, Stream};
use std::ffi::c_void;

pub(crate) const FRAME_BYTES: u64 = 1920 * 1080 * 3 / 2;
/// Words of a consumer's record: its stamp, and the frame's first and last word.
const RECORD_WORDS: usize = 3;

/// How a frame goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Ipc,
    Descriptor,
    ThroughHost,
}

/// One row of the comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    pub(crate) way: Way,
    /// The producer waits for its work before it publishes.
    pub(crate) waits: bool,
    /// How long its last kernel takes.
    pub(crate) work_us: u64,
}

impl Arm {
    pub(crate) fn all() -> Vec<Self> {
        let arm = |way, waits, work_us| Self { way, waits, work_us };
        let mut arms = Vec::new();
        for work_us in [0, 500] {
            for way in [Way::Ipc, Way::Descriptor] {
                arms.extend([arm(way, false, work_us), arm(way, true, work_us)]);
            }
            arms.push(arm(Way::ThroughHost, true, work_us));
        }
        arms
    }

    pub(crate) fn way(&self) -> &'static str {
        match self.way {
            Way::Ipc => "ipc",
            Way::Descriptor => "descriptor",
            Way::ThroughHost => "host memory",
        }
    }

    pub(crate) fn sync(&self) -> &'static str {
        if self.waits { "host" } else { "device" }
    }
}

/// Nanoseconds on the clock that all processes of the machine share.
pub(crate) fn now_ns() -> u64 {
    clock_ns(rustix::time::ClockId::Monotonic)
}

/// Processor time of this process with all its threads.
pub(crate) fn cpu_ns() -> u64 {
    clock_ns(rustix::time::ClockId::ProcessCPUTime)
}

fn clock_ns(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The kernels, and pinned memory that they write their records to: no copy brings them.
pub(crate) struct Stamps {
    produce: Function,
    consume: Function,
    step: Function,
    records: PinnedMemory,
}

const ONE_THREAD: Grid = Grid { blocks: [1; 3], threads: [1; 3] };

impl Stamps {
    pub(crate) fn new(gpu: &Gpu, records: usize) -> Result<Self, CudaError> {
        let module = Module::load(gpu, "stamp", include_str!("stamp.ptx"))?;
        Ok(Self {
            produce: module.function("produce")?,
            consume: module.function("consume")?,
            step: module.function("step")?,
            records: PinnedMemory::allocate(gpu, records * RECORD_WORDS * 8, "stamps")?,
        })
    }

    /// The address of a record, which is the same on the host and on the GPU (unified addressing).
    fn address(&self, record: usize) -> u64 {
        self.records.bytes()[record * RECORD_WORDS * 8..][..RECORD_WORDS * 8].as_ptr().addr() as u64
    }

    pub(crate) fn produce(
        &self,
        stream: &Stream,
        record: usize,
        frame: Span,
        tag: u64,
        work_us: u64,
    ) -> Result<(), CudaError> {
        let [first, last] = ends(frame);
        launch(&self.produce, stream, &mut [self.address(record), first, last, tag, work_us * 1000])
    }

    pub(crate) fn consume(&self, stream: &Stream, record: usize, frame: Span) -> Result<(), CudaError> {
        let [first, last] = ends(frame);
        launch(&self.consume, stream, &mut [self.address(record), first, last])
    }

    /// The smallest step of the GPU's clock, in nanoseconds.
    pub(crate) fn step_ns(&self, stream: &Stream) -> Result<u64, CudaError> {
        launch(&self.step, stream, &mut [self.address(0)])?;
        stream.synchronize()?;
        Ok(self.record(0)[0])
    }

    /// A record of work that is done.
    pub(crate) fn record(&self, record: usize) -> [u64; RECORD_WORDS] {
        let start = self.address(record) as *const u64;
        // SAFETY: the record lies in the pinned memory, 8-aligned by its page; the GPU wrote it and has done, which the
        // compiler does not know: hence volatile.
        std::array::from_fn(|word| unsafe { start.add(word).read_volatile() })
    }
}

/// Addresses of the first and the last word.
fn ends(frame: Span) -> [u64; 2] {
    [frame.ptr(), frame.ptr() + FRAME_BYTES - 8]
}

fn launch(function: &Function, stream: &Stream, words: &mut [u64]) -> Result<(), CudaError> {
    let mut arguments: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
    // SAFETY: each kernel of stamp.ptx takes 64-bit words alone, as many as its caller above passes; they point into
    // records of `Stamps` and into a frame of FRAME_BYTES, both of which their owners keep until the stream is done.
    unsafe { function.launch(stream, ONE_THREAD, 0, &mut arguments) }
}
