//! What NV12 gains over BGR24 where no decoder sets the pace: decoded surfaces are replayed from memory.

use crate::speed::{ARMS, Bench, Failure, Frames, SOURCE};
use millrace_cuda::{DeviceMemory, Gpu, Span, Stream};
use millrace_frame::{ImageDesc, PixelFormat};
use millrace_kernels::ChannelOrder;
use millrace_kernels::cuda::{CudaConverter, CudaJob, CudaToRgb};

/// In batches as the converter's; BGR24 is made frame by frame, as `nvdec-nv12` does with `FORMAT: bgr24`.
const BATCHES: [usize; 3] = [1, 16, 64];

/// Microseconds of a 1080p frame from its surface to its tensor, by NV12 and by way of BGR24, in turns.
pub(crate) fn run(gpu: &Gpu, bench: &Bench) -> Result<String, Failure> {
    let target = ARMS[0].target();
    let tensor_bytes = target.dtype.bytes() * 3 * u64::from(target.size.width_px) * u64::from(target.size.height_px);
    let frames = Frames::new(&bench.stream, tensor_bytes)?;
    let (bgr, bgr_bytes) = ImageDesc::packed(PixelFormat::Bgr24, SOURCE, frames.image.colour, 1);
    let pictures = DeviceMemory::allocate(gpu, frames.count() as u64 * bgr_bytes, "pictures")?;
    let picture = |index: usize| -> Span { pictures.span().part(index as u64 * bgr_bytes, bgr_bytes) };
    let (mut to_bgr, mut convert) = (CudaToRgb::new(gpu, ChannelOrder::Bgr)?, CudaConverter::new(gpu, &target)?);
    let mut rows = Vec::new();
    for batch in BATCHES {
        let mut by_nv12 = |stream: &Stream, jobs: &[CudaJob<'_>]| Ok(convert.queue(stream, jobs)?);
        let first = frames.us_per_frame(bench, batch, true, &mut by_nv12)?;
        let mut convert_bgr = CudaConverter::new(gpu, &target)?;
        let by_bgr24 = |stream: &Stream, jobs: &[CudaJob<'_>]| -> Result<(), Failure> {
            for (index, job) in jobs.iter().enumerate() {
                to_bgr.queue(stream, &[CudaJob { to: picture(index), padded: false, ..*job }])?;
            }
            let made = |(index, job): (usize, &CudaJob<'_>)| CudaJob { source: &bgr, from: picture(index), ..*job };
            let jobs: Vec<_> = jobs.iter().enumerate().map(made).collect();
            Ok(convert_bgr.queue(stream, &jobs)?)
        };
        let bgr24 = frames.us_per_frame(bench, batch, true, by_bgr24)?;
        let nv12 = (first + frames.us_per_frame(bench, batch, true, by_nv12)?) / 2.0;
        println!(
            "surfaces replayed, batch {batch}: {nv12:.3} us/frame as NV12, {bgr24:.3} by way of BGR24: {:.2} times",
            bgr24 / nv12
        );
        rows.push(format!("{{\"batch\": {batch}, \"nv12_us\": {nv12:.4}, \"bgr24_us\": {bgr24:.4}}}"));
    }
    Ok(format!("[{}]", rows.join(", ")))
}
