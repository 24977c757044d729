//! The conversion on a GPU as separate passes over whole pictures of 8-bit RGB: the baseline of an A/B run.

use super::converter::PICTURE;
use super::launch::{Modules, Pass};
use super::{CudaConvertError, CudaJob, Kernel, Plan};
use crate::convert::ConvertError;
use crate::geometry::{Placement, place};
use crate::target::{ChannelOrder, Target};
use millrace_cuda::{DeviceMemory, Gpu, Stream};
use millrace_frame::{ImageDesc, PixelFormat, Size, TensorDesc, TensorLayout};

/// The same passes as [`SeparatePasses`](crate::SeparatePasses), a launch each for the whole batch: colour, resize,
/// letterbox with normalization, and where the tensor is of planes, layout.
#[derive(Debug)]
pub struct CudaSeparatePasses {
    modules: Modules,
    target: Target,
    passes: [Pass; 4],
    scratch: Option<DeviceMemory>,
}

/// The buffers between the passes of one frame.
struct Between {
    placement: Placement,
    full: ImageDesc,
    small: ImageDesc,
    /// Where the two pictures and the tensor of pixels begin in the scratch memory, and their lengths.
    parts: [(u64, u64); 3],
}

impl CudaSeparatePasses {
    /// Loads the kernels.
    ///
    /// # Errors
    /// As [`CudaConverter::new`](super::CudaConverter::new).
    pub fn new(gpu: &Gpu, target: &Target) -> Result<Self, CudaConvertError> {
        target.validate().map_err(ConvertError::from)?;
        let mut modules = Modules::new(gpu);
        let pixels = Kernel::Convert(target.dtype, TensorLayout::Nhwc);
        modules.load(PICTURE)?;
        modules.load(pixels)?;
        let passes = [PICTURE, PICTURE, pixels, Kernel::Planes(target.dtype)].map(Pass::new);
        Ok(Self { modules, target: *target, passes, scratch: None })
    }

    /// The description of the tensor of a frame.
    ///
    /// # Errors
    /// A description that cannot be.
    pub fn tensor(&self, source: &ImageDesc) -> Result<TensorDesc, ConvertError> {
        Ok(Plan::new(source, &self.target)?.tensor())
    }

    /// Bytes that the passes move between themselves for a frame: each picture is written by one and read by the next.
    pub fn moved_bytes(&self, source: &ImageDesc) -> u64 {
        let shown = source.display_size();
        let placed = place(shown, self.target.size, self.target.fit).placed;
        let rgb = |width_px: u32, height_px: u32| 3 * u64::from(width_px) * u64::from(height_px);
        let pixels = if self.target.layout == TensorLayout::Nchw { target_bytes(&self.target) } else { 0 };
        2 * (rgb(shown.width_px, shown.height_px) + rgb(placed.width_px, placed.height_px) + pixels)
    }

    /// Queues the passes of all jobs.
    ///
    /// # Errors
    /// As [`CudaConverter::queue`](super::CudaConverter::queue); some passes may be queued by then.
    pub fn queue(&mut self, stream: &Stream, jobs: &[CudaJob<'_>]) -> Result<(), CudaConvertError> {
        let pixels = Target { layout: TensorLayout::Nhwc, ..self.target };
        let planar = self.target.layout == TensorLayout::Nchw;
        let tensor_bytes = target_bytes(&self.target);
        let mut end = 0;
        let mut between = Vec::with_capacity(jobs.len());
        for (index, job) in jobs.iter().enumerate() {
            // before its sizes are believed
            job.source.validate(job.from.bytes()).map_err(|e| CudaConvertError::Job { index, error: e.into() })?;
            let shown = job.source.display_size();
            let placement = place(shown, self.target.size, self.target.fit);
            let placed = placement.placed;
            let rgb = |size| ImageDesc::packed(PixelFormat::Rgb24, size, job.source.colour, 1);
            let (full, full_bytes) = rgb(shown);
            let (small, small_bytes) = rgb(Size::new(placed.width_px, placed.height_px));
            let parts = [full_bytes, small_bytes, if planar { tensor_bytes } else { 0 }].map(|bytes| {
                let start = end;
                end += bytes.next_multiple_of(256);
                (start, bytes)
            });
            between.push(Between { placement, full, small, parts });
        }
        if self.scratch.as_ref().is_none_or(|memory| memory.span().bytes() < end) {
            // freed first, when nobody uses it any more: two of them may not fit
            stream.synchronize()?;
            self.scratch = None;
            let what = "full-size pictures between separate passes";
            self.scratch = Some(DeviceMemory::allocate(stream.gpu(), end.max(1), what)?);
        }
        let Some(scratch) = self.scratch.as_ref().map(DeviceMemory::span) else { return Ok(()) };
        let part = |i: usize, k: usize| scratch.part(between[i].parts[k].0, between[i].parts[k].1);
        let target = self.target;
        let Self { modules, passes: [colour, resize, normalize, layout], .. } = self;
        let picture = |size| Target::picture(size, ChannelOrder::Rgb);

        let to_rgb: Vec<_> = (0..jobs.len())
            .map(|i| CudaJob { source: jobs[i].source, from: jobs[i].from, to: part(i, 0), padded: true })
            .collect();
        colour
            .queue(modules, stream, &to_rgb, |i| Plan::new(jobs[i].source, &picture(jobs[i].source.display_size())))?;
        let to_small: Vec<_> = between
            .iter()
            .enumerate()
            .map(|(i, b)| CudaJob { source: &b.full, from: part(i, 0), to: part(i, 1), padded: true })
            .collect();
        resize.queue(modules, stream, &to_small, |i| {
            let Between { placement, full, small, .. } = &between[i];
            let small_alone = Placement { placed: small.display, ..*placement };
            Plan::placed(full, &picture(small.display_size()), small_alone, placement.shown)
        })?;
        // where a small picture stands follows from its size, so its plan may serve others of that size
        let pixels_to = |i: usize| if planar { part(i, 2) } else { jobs[i].to };
        let to_pixels: Vec<_> = between
            .iter()
            .enumerate()
            .map(|(i, b)| CudaJob {
                source: &b.small,
                from: part(i, 1),
                to: pixels_to(i),
                padded: !planar && jobs[i].padded,
            })
            .collect();
        normalize.queue(modules, stream, &to_pixels, |i| {
            let Between { placement, small, .. } = &between[i];
            Plan::placed(small, &pixels, *placement, small.display)
        })?;
        if planar {
            let to_planes: Vec<_> = between
                .iter()
                .enumerate()
                .map(|(i, b)| CudaJob { source: &b.small, from: part(i, 2), to: jobs[i].to, padded: true })
                .collect();
            layout.queue(modules, stream, &to_planes, |i| {
                let Between { placement, small, .. } = &between[i];
                Plan::placed(small, &target, *placement, small.display)
            })?;
        }
        Ok(())
    }
}

fn target_bytes(target: &Target) -> u64 {
    let Size { width_px, height_px } = target.size;
    target.dtype.bytes() * 3 * u64::from(width_px) * u64::from(height_px)
}
