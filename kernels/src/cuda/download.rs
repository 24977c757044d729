//! An output of a network on its way from a GPU to the host: whole, or without the candidates that cannot become boxes.
#![allow(unsafe_code, reason = "copies that nobody waits for")]

use super::candidates::{COUNTS_BYTES, Candidates, Layout, NoBox, Sieve};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use millrace_cuda::{CudaError, DeviceMemory, Event, Gpu, PinnedMemory, Span, Stream};
use millrace_frame::TensorDtype;

/// Of a smaller output of a frame everything is copied: at 50 GB/s that is 5 us, as much as the kernels need.
const LEAST_BYTES: u64 = 256 << 10;
/// There is room for one of so many candidates. More of them than that are rarely likely to be boxes.
const ROOM_PART: usize = 16;
/// After a batch with more candidates than there is room for, so many are copied whole at once.
const WHOLE_BATCHES: u32 = 32;

/// An output of batches of frames, in memory of the host. It is used for one batch after the other.
#[derive(Debug)]
pub struct Download {
    elements: usize,
    frames: usize,
    dtype: TensorDtype,
    host: PinnedMemory,
    /// All elements as `f32`, where they are others.
    converted: Vec<f32>,
    few: Option<Few>,
    queued: Option<Queued>,
    bytes_down: u64,
    done: Event,
}

/// The copy that was queued last.
#[derive(Clone, Copy, Debug)]
struct Queued {
    from: Span,
    frames: usize,
    sieved: bool,
}

/// What comes down without the other candidates.
#[derive(Debug)]
struct Few {
    of: Candidates,
    sieve: Sieve,
    memory: DeviceMemory,
    host: PinnedMemory,
    /// Of each frame of the last batch; nothing where all of the frame is in host memory.
    frames: Vec<Option<Kept>>,
    whole_for: u32,
}

/// The candidates of a frame that were kept.
#[derive(Clone, Debug, Default)]
struct Kept {
    order: Vec<(u32, u32)>,
    places: Vec<u32>,
    numbers: Vec<f32>,
    outside: bool,
}

/// An output of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    /// Its elements; where candidates were left out, those of the others in the output's own layout.
    pub numbers: &'a [f32],
    /// Where candidates were left out, which ones are here.
    pub kept: Option<KeptPlaces<'a>>,
}

/// Which candidates of an output are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPlaces<'a> {
    /// The number of each in the output, rising.
    pub places: &'a [u32],
    /// How many the output has.
    pub all: usize,
    /// Whether the largest deciding number of one that was left out is below 0 or above 1.
    pub outside: bool,
}

impl Download {
    /// For batches of at most `frames` frames of an output called `what`, with so many elements each. Where it spells candidates,
    /// and where that pays, those that cannot become boxes are left out.
    ///
    /// # Errors
    /// Elements that are no candidates, or neither `f32` nor `f16`; no memory; a driver too old for the kernels.
    pub fn new(
        gpu: &Gpu,
        what: &str,
        elements: usize,
        frames: usize,
        dtype: TensorDtype,
        candidates: Option<&Candidates>,
    ) -> Result<Self, CudaError> {
        if dtype == TensorDtype::U8 {
            return Err(CudaError::misuse(what, "its elements are u8; f32 or f16 are expected"));
        }
        let frame_bytes = elements as u64 * dtype.bytes();
        let few = match candidates {
            Some(of) if frame_bytes >= LEAST_BYTES => {
                let room = elements / of.numbers.max(1) / ROOM_PART;
                let sieve = Sieve::new(gpu, of, elements, dtype, room)?;
                let memory = DeviceMemory::allocate(gpu, sieve.bytes(frames), what)?;
                let host = PinnedMemory::allocate(gpu, sieve.bytes(frames) as usize, what)?;
                Some(Few { of: of.clone(), sieve, memory, host, frames: vec![None; frames], whole_for: 0 })
            }
            _ => None,
        };
        let host = PinnedMemory::allocate(gpu, frame_bytes as usize * frames, what)?;
        let converted = vec![0.0; if dtype == TensorDtype::F32 { 0 } else { elements * frames }];
        let done = Event::new(gpu)?;
        Ok(Self { elements, frames, dtype, host, converted, few, queued: None, bytes_down: 0, done })
    }

    /// Queues what brings the first `frames` frames of the output at `from` to the host. The memory of `from` is to stay, and
    /// not to be written, until [`arrive`](Self::arrive) has returned.
    ///
    /// # Errors
    /// More frames than it was made for; fewer bytes than they have; the driver's.
    pub fn queue(&mut self, stream: &Stream, from: Span, frames: usize, no_box: NoBox) -> Result<(), CudaError> {
        let bytes = self.frame_bytes() * frames as u64;
        if frames > self.frames || from.bytes() < bytes {
            let text = format!("{frames} of {} frames, {bytes} B of {} B", self.frames, from.bytes());
            return Err(CudaError::misuse("the download of an output", text));
        }
        self.wait()?;
        let sieved = self.few.as_mut().is_some_and(|few| few.is_wanted(no_box));
        self.queued = Some(Queued { from, frames, sieved });
        let queued = self.copy(stream, no_box).and_then(|()| stream.record(&self.done));
        queued.inspect_err(|_| {
            // a copy that was queued before it still writes to our memory
            let _ = stream.synchronize();
            self.queued = None;
        })
    }

    fn copy(&mut self, stream: &Stream, no_box: NoBox) -> Result<(), CudaError> {
        let Some(Queued { from, frames, sieved }) = self.queued else { return Ok(()) };
        let (from, to) = match &mut self.few {
            Some(few) if sieved => {
                let bytes = few.sieve.bytes(frames);
                let to = few.memory.span().part(0, bytes);
                few.sieve.queue(stream, from, frames, to, no_box)?;
                (to, &mut few.host.bytes_mut()[..bytes as usize])
            }
            _ => {
                let bytes = self.frame_bytes() * frames as u64;
                (from.part(0, bytes), &mut self.host.bytes_mut()[..bytes as usize])
            }
        };
        self.bytes_down = from.bytes();
        // SAFETY: the bytes are ours, and are looked at and freed after `wait`.
        unsafe { stream.download_unordered(from, to) }
    }

    /// Sleeps until the last copy is done.
    fn wait(&self) -> Result<(), CudaError> {
        if self.queued.is_some() { self.done.synchronize() } else { Ok(()) }
    }

    /// Sleeps until everything is there. Where a frame has more candidates than there is room for, all of it is copied now, in
    /// `late`.
    ///
    /// # Errors
    /// The driver's, also those of work that was queued before.
    pub fn arrive(&mut self, late: &Stream) -> Result<(), CudaError> {
        self.wait()?;
        let Some(Queued { from, frames, sieved }) = self.queued.take() else { return Ok(()) };
        let bytes = self.frame_bytes();
        for n in 0..frames {
            let arrived = self.few.as_mut().is_some_and(|few| few.arrive(n, frames, sieved));
            if !arrived {
                let at = n as u64 * bytes;
                let whole = &mut self.host.bytes_mut()[at as usize..(at + bytes) as usize];
                if sieved {
                    late.download(from.part(at, bytes), whole)?;
                    self.bytes_down += bytes;
                }
                if self.dtype == TensorDtype::F16 {
                    let bits: &[u16] = bytemuck::cast_slice(whole);
                    let to = &mut self.converted[n * self.elements..][..self.elements];
                    bits.reinterpret_cast::<half::f16>().convert_to_f32_slice(to);
                }
            }
        }
        Ok(())
    }

    /// Frame `n` of the last batch.
    ///
    /// # Panics
    /// There is no frame of that number.
    pub fn frame(&self, n: usize) -> Arrived<'_> {
        if let Some(few) = &self.few
            && let Some(Kept { places, numbers, outside, .. }) = &few.frames[n]
        {
            let all = self.elements / few.of.numbers;
            return Arrived { numbers, kept: Some(KeptPlaces { places, all, outside: *outside }) };
        }
        let numbers = match self.dtype {
            TensorDtype::F32 => bytemuck::cast_slice(self.host.bytes()),
            TensorDtype::F16 | TensorDtype::U8 => &self.converted[..],
        };
        Arrived { numbers: &numbers[n * self.elements..][..self.elements], kept: None }
    }

    /// Bytes that were copied for the last batch.
    pub fn bytes_down(&self) -> u64 {
        self.bytes_down
    }

    fn frame_bytes(&self) -> u64 {
        self.elements as u64 * self.dtype.bytes()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // a GPU that cannot say so does not write any more
        let _ = self.wait();
    }
}

impl Few {
    /// Whether the next batch is to come without the other candidates.
    fn is_wanted(&mut self, no_box: NoBox) -> bool {
        let wanted = no_box.from < no_box.below && self.whole_for == 0;
        self.whole_for = self.whole_for.saturating_sub(1);
        wanted
    }

    /// Sorts what is kept of frame `n`, in host memory, by place. `false` where it is not there.
    fn arrive(&mut self, n: usize, frames: usize, sieved: bool) -> bool {
        let Self { of, sieve, host, frames: all, whole_for, .. } = self;
        // the buffers of an earlier batch
        let mut kept = all[n].take().unwrap_or_default();
        if !sieved {
            return false;
        }
        let counts: &[u32] = bytemuck::cast_slice(&host.bytes()[n * COUNTS_BYTES as usize..][..COUNTS_BYTES as usize]);
        let (found, room) = (counts[0] as usize, sieve.room as usize);
        if found > room {
            *whole_for = WHOLE_BATCHES;
            return false;
        }
        let start = frames * COUNTS_BYTES as usize + n * sieve.frame_bytes() as usize;
        let (places, rows) = host.bytes()[start..][..sieve.frame_bytes() as usize].split_at(4 * room);
        let (places, rows): (&[u32], &[f32]) = (bytemuck::cast_slice(places), bytemuck::cast_slice(rows));
        kept.outside = counts[1] != 0;
        kept.order.clear();
        kept.order.extend(places[..found].iter().copied().zip(0..));
        kept.order.sort_unstable();
        kept.places.clear();
        kept.places.extend(kept.order.iter().map(|&(place, _)| place));
        kept.numbers.clear();
        let slots = || kept.order.iter().map(|&(_, slot)| slot as usize * of.numbers);
        match of.layout {
            Layout::Rows => slots().for_each(|row| kept.numbers.extend_from_slice(&rows[row..][..of.numbers])),
            Layout::Planes => (0..of.numbers).for_each(|n| kept.numbers.extend(slots().map(|row| rows[row + n]))),
        }
        all[n] = Some(kept);
        true
    }
}
