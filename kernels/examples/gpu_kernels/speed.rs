//! How fast: 1080p NV12 into 640 x 640 f16 planes, by the GPU's own clock, beside plain copies in the same run.

use crate::common::{colour, noise};
use millrace_cuda::{CudaError, DeviceMemory, Event, Gpu, Module, Span, Stream};
use millrace_frame::{ChromaSiting, ImageDesc, Matrix, PixelFormat, Range, Size, TensorDtype, TensorLayout};
use millrace_kernels::cuda::{CudaConverter, CudaJob, CudaSeparatePasses, CudaToRgb, Kernel, Tile};
use millrace_kernels::{Anchor, ChannelOrder, Fit, Rounding, Target};
use std::collections::BTreeSet;

type Failure = Box<dyn std::error::Error>;

/// Frames in memory, each with its tensor: 744 MB, many times what a GPU keeps in its cache.
const FRAMES: usize = 128;
const SOURCE: Size = Size::new(1920, 1080);
const MODEL: Size = Size::new(640, 640);
const SECTOR_BYTES: u64 = 32;
const SAMPLES: usize = 31;

/// Work that keeps the GPU busy while launches are queued behind it, so that none of them waits for the CPU.
struct Bench {
    stream: Stream,
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

struct Frames {
    image: ImageDesc,
    sources: DeviceMemory,
    source_bytes: u64,
    tensors: DeviceMemory,
    tensor_bytes: u64,
}

impl Frames {
    fn new(stream: &Stream, tensor_bytes: u64) -> Result<Self, Failure> {
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

    fn source(&self, index: usize) -> Span {
        self.sources.span().part(index as u64 * self.source_bytes, self.source_bytes)
    }

    fn jobs(&self, first: usize, count: usize) -> Vec<CudaJob<'_>> {
        (first..first + count)
            .map(|index| CudaJob {
                source: &self.image,
                from: self.source(index),
                to: self.tensors.span().part(index as u64 * self.tensor_bytes, self.tensor_bytes),
            })
            .collect()
    }

    /// Microseconds of a frame, in batches that go once through all of memory.
    fn us_per_frame(
        &self,
        bench: &Bench,
        batch: usize,
        mut queue: impl FnMut(&Stream, &[CudaJob<'_>]) -> Result<(), Failure>,
    ) -> Result<f64, Failure> {
        let batches: Vec<_> = (0..FRAMES / batch).map(|k| self.jobs(k * batch, batch)).collect();
        let us = bench.median_us(|stream| batches.iter().try_for_each(|jobs| queue(stream, jobs)))?;
        Ok(us / FRAMES as f64)
    }
}

pub(crate) fn run(gpu: &Gpu, variants: Option<&str>) -> Result<String, Failure> {
    let bench = Bench::new(gpu)?;
    let target = Target {
        size: MODEL,
        layout: TensorLayout::Nchw,
        dtype: TensorDtype::F16,
        order: ChannelOrder::Rgb,
        mean: [0.0; 3],
        scale: [1.0 / 255.0; 3],
        fit: Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest },
        pad: 114,
    };
    let tensor_bytes = 2 * 3 * u64::from(MODEL.width_px) * u64::from(MODEL.height_px);
    let frames = Frames::new(&bench.stream, tensor_bytes)?;
    let placed = millrace_kernels::place(SOURCE, MODEL, target.fit).placed;
    let must = sector_bytes(&frames.image, Size::new(placed.width_px, placed.height_px)) + tensor_bytes;
    let whole = 3 * u64::from(SOURCE.width_px) * u64::from(SOURCE.height_px) / 2 + tensor_bytes;
    let [from, to] = [&bench.busy[0], &bench.busy[1]].map(DeviceMemory::span);
    let copy_us = bench.median_us(|stream| Ok(stream.copy(from, to)?))?;
    // bytes per microsecond, by a million: TB/s
    let copy = 2.0 * from.bytes() as f64 / copy_us / 1e6;
    println!("a copy within the GPU: {copy:.3} TB/s, read and written");
    println!("1920x1080 nv12 -> 640x640 f16 nchw: {must} B must move (sectors read + tensor), {whole} B are there");
    println!("{:>28} {:>9} {:>9} {:>9} {:>9}", "", "us/frame", "TB/s", "of copy", "frames/s");
    let row = |name: &str, us: f64| {
        let rate = must as f64 / us / 1e6;
        println!("{name:>28} {us:>9.3} {rate:>9.3} {:>8.1}% {:>9.0}", 100.0 * rate / copy, 1e6 / us);
        format!(
            "{{\"name\": \"{name}\", \"us_per_frame\": {us:.4}, \"tb_per_s\": {rate:.4}, \"of_copy\": {:.4}}}",
            rate / copy
        )
    };
    let mut rows = Vec::new();
    let mut fused = CudaConverter::new(gpu, &target)?;
    let mut separate = CudaSeparatePasses::new(gpu, &target)?;
    for batch in [1, 4, 16, 32, 64] {
        let us = frames.us_per_frame(&bench, batch, |stream, jobs| Ok(fused.queue(stream, jobs)?))?;
        rows.push(row(&format!("fused, batch {batch}"), us));
    }
    for batch in [1, 16] {
        let us = frames.us_per_frame(&bench, batch, |stream, jobs| Ok(separate.queue(stream, jobs)?))?;
        rows.push(row(&format!("separate passes, batch {batch}"), us));
    }
    if let Some(folder) = variants {
        rows.extend(tune(gpu, &bench, &frames, &target, folder, row)?);
    }
    drop(frames);
    let rgb_bytes = 3 * u64::from(SOURCE.width_px) * u64::from(SOURCE.height_px);
    let frames = Frames::new(&bench.stream, rgb_bytes)?;
    let mut pictures = CudaToRgb::new(gpu, ChannelOrder::Bgr)?;
    let us = frames.us_per_frame(&bench, 16, |stream, jobs| Ok(pictures.queue(stream, jobs)?))?;
    let rate = (rgb_bytes + rgb_bytes / 2) as f64 / us / 1e6;
    println!(
        "1920x1080 nv12 -> bgr24, batch 16: {us:.3} us/frame, {rate:.3} TB/s, {:.1} % of a copy",
        100.0 * rate / copy
    );
    Ok(format!(
        "{{\"copy_tb_per_s\": {copy:.4}, \"bytes_must_move\": {must}, \"bytes_whole\": {whole}, \
         \"bgr24_us_per_frame\": {us:.4}, \"rows\": [{}]}}",
        rows.join(", ")
    ))
}

/// Other tiles of the same kernel, each from a file named by its numbers.
fn tune(
    gpu: &Gpu,
    bench: &Bench,
    frames: &Frames,
    target: &Target,
    folder: &str,
    row: impl Fn(&str, f64) -> String,
) -> Result<Vec<String>, Failure> {
    let kernel = Kernel::Convert(target.dtype, target.layout);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let mut rows = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "ptx")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // p2r4...: 2 pixels, 4 rows
        let mut numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
        let (Some(pixels), Some(rows_of_tile)) = (numbers.next(), numbers.next()) else { continue };
        let function = Module::load(gpu, &name, &std::fs::read_to_string(path)?)?.function(&kernel.name())?;
        let mut converter = CudaConverter::new(gpu, target)?;
        #[allow(unsafe_code, reason = "a kernel from a file of the caller")]
        // SAFETY: `build.py --tune` made it from the same source, with the tile that its name says.
        unsafe {
            converter.use_variant(function, Tile { pixels, rows: rows_of_tile });
        }
        for batch in [16, 64] {
            let us = frames.us_per_frame(bench, batch, |stream, jobs| Ok(converter.queue(stream, jobs)?))?;
            rows.push(row(&format!("{name}, batch {batch}"), us));
        }
    }
    Ok(rows)
}
