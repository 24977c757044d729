//! How fast: 1080p NV12 into 640 x 640 planes, by the GPU's own clock, beside plain copies in the same run.

use crate::common::{colour, noise};
use millrace_cuda::{CudaError, DeviceMemory, Event, Gpu, Module, Span, Stream};
use millrace_frame::{ChromaSiting, ImageDesc, Matrix, PixelFormat, Range, Rect, Size, TensorDtype, TensorLayout};
use millrace_kernels::cuda::{CudaConverter, CudaJob, CudaSeparatePasses, CudaToRgb, Kernel, Tile};
use millrace_kernels::{Anchor, ChannelOrder, Fit, Rounding, Target};
use std::collections::BTreeSet;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// Frames in memory, each with its tensor: over 740 MB, many times what a GPU keeps in its cache.
const FRAMES: usize = 128;
pub(crate) const SOURCE: Size = Size::new(1920, 1080);
const SECTOR_BYTES: u64 = 32;
const SAMPLES: usize = 15;
const BATCHES: [usize; 5] = [1, 4, 16, 32, 64];

/// What is measured.
pub(crate) struct Arm {
    name: &'static str,
    dtype: TensorDtype,
    /// Width and height of the tensor.
    side: u32,
    /// The tensor has its padding from before.
    padded: bool,
}

pub(crate) const ARMS: [Arm; 5] = [
    Arm { name: "fused", dtype: TensorDtype::F16, side: 640, padded: true },
    Arm { name: "fused with padding", dtype: TensorDtype::F16, side: 640, padded: false },
    Arm { name: "fused f32", dtype: TensorDtype::F32, side: 640, padded: true },
    Arm { name: "fused u8", dtype: TensorDtype::U8, side: 640, padded: true },
    Arm { name: "fused to 416 x 416", dtype: TensorDtype::F16, side: 416, padded: true },
];

impl Arm {
    pub(crate) fn target(&self) -> Target {
        Target {
            size: Size::new(self.side, self.side),
            layout: TensorLayout::Nchw,
            dtype: self.dtype,
            order: ChannelOrder::Rgb,
            mean: [0.0; 3],
            scale: [if self.dtype == TensorDtype::U8 { 1.0 } else { 1.0 / 255.0 }; 3],
            fit: Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest },
            pad: 114,
        }
    }

    /// Bytes that one frame must move: the sectors that hold its samples, and what is written of the tensor.
    fn must_bytes(&self, image: &ImageDesc) -> u64 {
        let target = self.target();
        let Rect { width_px, height_px, .. } = millrace_kernels::place(SOURCE, target.size, target.fit).placed;
        let placed = Size::new(width_px, height_px);
        let Size { width_px, height_px } = if self.padded { placed } else { target.size };
        sector_bytes(image, placed) + 3 * self.dtype.bytes() * u64::from(width_px) * u64::from(height_px)
    }
}

/// Work that keeps the GPU busy while launches are queued behind it, so that none of them waits for the CPU.
pub(crate) struct Bench {
    pub(crate) stream: Stream,
    busy: [DeviceMemory; 2],
    start: Event,
    end: Event,
}

impl Bench {
    fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let memory = || DeviceMemory::allocate(gpu, 512 << 20, "copies");
        Ok(Self {
            stream: Stream::new(gpu)?,
            busy: [memory()?, memory()?],
            start: Event::timed(gpu)?,
            end: Event::timed(gpu)?,
        })
    }

    /// The median time of `work`, in microseconds.
    fn median_us(&self, mut work: impl FnMut(&Stream) -> Result<(), Failure>) -> Result<f64, Failure> {
        let mut times = Vec::new();
        for sample in 0..SAMPLES + 3 {
            for _ in 0..16 {
                self.stream.copy(self.busy[0].span(), self.busy[1].span())?;
            }
            self.stream.record(&self.start)?;
            work(&self.stream)?;
            self.stream.record(&self.end)?;
            self.stream.synchronize()?;
            if sample >= 3 {
                times.push(f64::from(self.end.ms_since(&self.start)?) * 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// TB/s, read and written, of copies that move `bytes` each and come after each other.
    fn copy_rate(&self, bytes: u64, copies: u64) -> Result<f64, Failure> {
        let part_bytes = (bytes / 2).next_multiple_of(256);
        let [from, to] = [&self.busy[0], &self.busy[1]].map(DeviceMemory::span);
        let us = self.median_us(|stream| {
            (0..copies).try_for_each(|k| {
                let [from, to] = [from, to].map(|span| span.part(k * part_bytes, part_bytes));
                Ok(stream.copy(from, to)?)
            })
        })?;
        Ok((2 * part_bytes * copies) as f64 / us / 1e6)
    }
}

/// The samples of an axis that are read, by the formula of the resize alone: those with a weight at
/// `(k + 1/2) len / outputs - 1/2`, for chroma at half of it less half its offset.
fn touched(len: u32, outputs: u32, chroma_offset_px: Option<f64>) -> BTreeSet<u64> {
    let (samples, of) = match chroma_offset_px {
        None => (f64::from(len), 1.0),
        Some(_) => (f64::from(len.div_ceil(2)), 2.0),
    };
    (0..outputs)
        .flat_map(|k| {
            let pixel = (f64::from(k) + 0.5) * f64::from(len) / f64::from(outputs) - 0.5;
            let at = ((pixel - chroma_offset_px.unwrap_or(0.0)) / of).clamp(0.0, samples - 1.0);
            let next = (at.fract() > 1e-9).then(|| at.floor() as u64 + 1);
            [Some(at.floor() as u64), next].into_iter().flatten()
        })
        .collect()
}

/// Bytes of the sectors that one frame's conversion has to read.
fn sector_bytes(image: &ImageDesc, placed: Size) -> u64 {
    let (ox, oy) = image.colour.siting.value.offset_luma_px();
    let plane = |x: BTreeSet<u64>, rows: BTreeSet<u64>, step: u64| {
        let sectors: BTreeSet<u64> = x.iter().map(|x| x * step / SECTOR_BYTES).collect();
        sectors.len() as u64 * rows.len() as u64 * SECTOR_BYTES
    };
    let Size { width_px, height_px } = image.coded;
    let (w, h) = (placed.width_px, placed.height_px);
    plane(touched(width_px, w, None), touched(height_px, h, None), 1)
        + plane(touched(width_px, w, Some(ox)), touched(height_px, h, Some(oy)), 2)
}

pub(crate) struct Frames {
    pub(crate) image: ImageDesc,
    sources: DeviceMemory,
    source_bytes: u64,
    tensors: DeviceMemory,
    tensor_bytes: u64,
}

impl Frames {
    pub(crate) fn new(stream: &Stream, tensor_bytes: u64) -> Result<Self, Failure> {
        let tagged = colour(Matrix::Bt709, Range::Limited, ChromaSiting::Left);
        // the pitch of a hardware decoder's surfaces
        let (image, source_bytes) = ImageDesc::packed(PixelFormat::Nv12, SOURCE, tagged, 256);
        let (count, gpu) = (FRAMES as u64, stream.gpu());
        let sources = DeviceMemory::allocate(gpu, count * source_bytes, "frames")?;
        let tensors = DeviceMemory::allocate(gpu, count * tensor_bytes, "tensors")?;
        let frames = Self { image, sources, source_bytes, tensors, tensor_bytes };
        for index in 0..FRAMES {
            stream.upload(&noise(index as u64, source_bytes as usize), frames.source(index))?;
        }
        Ok(frames)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        FRAMES
    }

    fn source(&self, index: usize) -> Span {
        self.sources.span().part(index as u64 * self.source_bytes, self.source_bytes)
    }

    fn jobs(&self, first: usize, count: usize, padded: bool) -> Vec<CudaJob<'_>> {
        (first..first + count)
            .map(|index| CudaJob {
                source: &self.image,
                from: self.source(index),
                to: self.tensors.span().part(index as u64 * self.tensor_bytes, self.tensor_bytes),
                padded,
            })
            .collect()
    }

    /// Microseconds of a frame, in batches that go once through all of memory.
    pub(crate) fn us_per_frame(
        &self,
        bench: &Bench,
        batch: usize,
        padded: bool,
        mut queue: impl FnMut(&Stream, &[CudaJob<'_>]) -> Result<(), Failure>,
    ) -> Result<f64, Failure> {
        let batches: Vec<_> = (0..FRAMES / batch).map(|k| self.jobs(k * batch, batch, padded)).collect();
        let us = bench.median_us(|stream| batches.iter().try_for_each(|jobs| queue(stream, jobs)))?;
        Ok(us / FRAMES as f64)
    }
}

pub(crate) fn run(gpu: &Gpu, variants: Option<&str>) -> Result<String, Failure> {
    let bench = Bench::new(gpu)?;
    let copy = bench.copy_rate(2 * bench.busy[0].span().bytes(), 1)?;
    println!(
        "a copy within the GPU: {copy:.3} TB/s, read and written; small copies: of as many bytes as a batch, in turn"
    );
    println!("1920x1080 nv12 -> planes; must move: the sectors that hold the samples, and what is written");
    println!("{:>38} {:>9} {:>9} {:>7} {:>8} {:>12}", "", "must B", "us/frame", "TB/s", "of copy", "of small ones");
    let row = |name: &str, batch: usize, must: u64, us: f64| -> Result<String, Failure> {
        let small = bench.copy_rate(must * batch as u64, (FRAMES / batch) as u64)?;
        let rate = must as f64 / us / 1e6;
        let (of_copy, of_small) = (rate / copy, rate / small);
        let name = format!("{name}, batch {batch}");
        println!("{name:>38} {must:>9} {us:>9.3} {rate:>7.3} {:>7.1}% {:>11.1}%", 100.0 * of_copy, 100.0 * of_small);
        Ok(format!(
            "{{\"name\": \"{name}\", \"must_bytes\": {must}, \"us_per_frame\": {us:.4}, \"tb_per_s\": {rate:.4}, \
             \"of_copy\": {of_copy:.4}, \"of_small_copies\": {of_small:.4}}}"
        ))
    };
    let mut rows = Vec::new();
    let frames = Frames::new(&bench.stream, 4 * 3 * 640 * 640)?;
    let mut us = [[0.0; BATCHES.len()]; ARMS.len()];
    // there and back, so that what drifts hits all alike
    for at in (0..ARMS.len()).chain((0..ARMS.len()).rev()) {
        let arm = &ARMS[at];
        let mut fused = CudaConverter::new(gpu, &arm.target())?;
        for (us, batch) in us[at].iter_mut().zip(BATCHES) {
            let queue = |stream: &Stream, jobs: &[CudaJob<'_>]| Ok(fused.queue(stream, jobs)?);
            *us += frames.us_per_frame(&bench, batch, arm.padded, queue)? / 2.0;
        }
    }
    for (arm, us) in ARMS.iter().zip(us) {
        let must = arm.must_bytes(&frames.image);
        for (batch, us) in BATCHES.into_iter().zip(us) {
            rows.push(row(arm.name, batch, must, us)?);
        }
    }
    let with_padding = &ARMS[1];
    let must = with_padding.must_bytes(&frames.image);
    let mut separate = CudaSeparatePasses::new(gpu, &with_padding.target())?;
    for batch in [1, 16] {
        let us = frames.us_per_frame(&bench, batch, false, |stream, jobs| Ok(separate.queue(stream, jobs)?))?;
        rows.push(row("separate passes", batch, must, us)?);
    }
    if let Some(folder) = variants {
        rows.extend(tune(gpu, &bench, &frames, folder, row)?);
    }
    drop(frames);
    let rgb_bytes = 3 * u64::from(SOURCE.width_px) * u64::from(SOURCE.height_px);
    let frames = Frames::new(&bench.stream, rgb_bytes)?;
    let mut pictures = CudaToRgb::new(gpu, ChannelOrder::Bgr)?;
    let us = frames.us_per_frame(&bench, 16, false, |stream, jobs| Ok(pictures.queue(stream, jobs)?))?;
    let rate = (rgb_bytes + rgb_bytes / 2) as f64 / us / 1e6;
    println!(
        "1920x1080 nv12 -> bgr24, batch 16: {us:.3} us/frame, {rate:.3} TB/s, {:.1} % of a copy",
        100.0 * rate / copy
    );
    drop(frames);
    let replayed = crate::replay::run(gpu, &bench)?;
    Ok(format!(
        "{{\"copy_tb_per_s\": {copy:.4}, \"bgr24_us_per_frame\": {us:.4}, \"replayed\": {replayed}, \"rows\": [{}]}}",
        rows.join(", ")
    ))
}

/// Other tiles of the f16 kernels, each from a file named by its kernel and its numbers.
fn tune(
    gpu: &Gpu,
    bench: &Bench,
    frames: &Frames,
    folder: &str,
    row: impl Fn(&str, usize, u64, f64) -> Result<String, Failure>,
) -> Result<Vec<String>, Failure> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let mut rows = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "ptx")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // millrace_f16_nchw_by3-p8r2y4...: 8 pixels, 2 rows, blocks of 4 rows of threads
        let Some((kernel_name, tile)) = name.split_once('-') else { continue };
        let mut numbers = tile.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        let kernel = Kernel::of(TensorDtype::F16).find(|kernel| kernel.name() == kernel_name);
        let (Some(kernel), Some(pixels), Some(tile_rows), Some(block_rows)) =
            (kernel, numbers.next(), numbers.next(), numbers.next())
        else {
            continue;
        };
        let arm = &ARMS[if matches!(kernel, Kernel::Whole(..)) { 0 } else { 4 }];
        let function = Module::load(gpu, &name, &std::fs::read_to_string(path)?)?.function(&kernel.name())?;
        let mut converter = CudaConverter::new(gpu, &arm.target())?;
        #[allow(unsafe_code, reason = "a kernel from a file of the caller")]
        // SAFETY: `build.py --tune` made it from the same source, with the tile that its name says.
        unsafe {
            converter.use_variant(kernel, function, Tile { pixels, rows: tile_rows, block_rows });
        }
        for batch in [1, 16, 64] {
            let queue = |stream: &Stream, jobs: &[CudaJob<'_>]| Ok(converter.queue(stream, jobs)?);
            let us = frames.us_per_frame(bench, batch, arm.padded, queue)?;
            rows.push(row(&name, batch, arm.must_bytes(&frames.image), us)?);
        }
    }
    Ok(rows)
}
