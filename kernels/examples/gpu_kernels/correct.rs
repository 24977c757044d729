//! Frames and targets of every kind against the f64 reference, and against the fused pass on the CPU.

use crate::common::{decode, image, noise, target, whole, worst};
use millrace_cuda::{DeviceMemory, Gpu, Stream};
use millrace_frame::{ImageDesc, Size, TensorDtype};
use millrace_kernels::cuda::{CudaConverter, CudaJob, CudaSeparatePasses};
use millrace_kernels::reference::{Order, tensor};
use millrace_kernels::{ChannelOrder, Converter, SeparatePasses, Target};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const CASES: usize = 200;
const POISON: u8 = 0xa5;
/// Bytes before and after each tensor: a multiple of every element.
const GUARD_BYTES: u64 = 64;

pub(crate) struct Checked {
    pub(crate) right: bool,
    pub(crate) json: String,
}

/// A slot of the GPU with a frame, and a poisoned one for its tensor.
struct Slots {
    source: DeviceMemory,
    tensor: DeviceMemory,
}

impl Slots {
    fn new(stream: &Stream, bytes: &[u8], tensor_bytes: u64) -> Result<Self, millrace_cuda::CudaError> {
        let source = DeviceMemory::allocate(stream.gpu(), bytes.len() as u64, "a frame")?;
        let tensor = DeviceMemory::allocate(stream.gpu(), tensor_bytes + 2 * GUARD_BYTES, "a tensor")?;
        stream.upload(bytes, source.span())?;
        stream.fill(tensor.span(), POISON)?;
        Ok(Self { source, tensor })
    }

    fn job<'a>(&self, source: &'a ImageDesc) -> CudaJob<'a> {
        let to = self.tensor.span();
        CudaJob {
            source,
            from: self.source.span(),
            to: to.part(GUARD_BYTES, to.bytes() - 2 * GUARD_BYTES),
            padded: false,
        }
    }

    /// The tensor, and whether the bytes around it are as they were.
    fn tensor(&self, stream: &Stream) -> Result<(Vec<u8>, bool), millrace_cuda::CudaError> {
        let mut all = vec![0; self.tensor.span().bytes() as usize];
        stream.download(self.tensor.span(), &mut all)?;
        let guard = GUARD_BYTES as usize;
        let end = all.len() - guard;
        let kept = all[..guard].iter().chain(&all[end..]).all(|&b| b == POISON);
        Ok((all[guard..end].to_vec(), kept))
    }
}

pub(crate) fn run(gpu: &Gpu) -> Result<Checked, Box<dyn std::error::Error>> {
    let stream = Stream::new(gpu)?;
    let mut runner = TestRunner::deterministic();
    let (mut wrong, mut other_bits, mut wrong_passes) = (0, 0, 0);
    let (mut squares, mut values, mut furthest) = (0.0, 0usize, 0.0f64);
    // one of each element is kept, and with it the module that the others share
    let kept = TensorDtype::ALL.iter().map(|&dtype| {
        CudaConverter::new(gpu, &Target { dtype, ..Target::picture(Size::new(1, 1), ChannelOrder::Rgb) })
    });
    let _kept = kept.collect::<Result<Vec<_>, _>>()?;
    for case in 0..CASES {
        // of whole-number scales, which have kernels of their own, too few would come by chance
        let any = (image(), target()).boxed();
        let kind = if case % 4 == 3 { whole().boxed() } else { any };
        let ((image, have), target) = kind.new_tree(&mut runner).map_err(|e| e.to_string())?.current();
        let bytes = noise(case as u64, have as usize);
        let mut converter = CudaConverter::new(gpu, &target)?;
        let slots = Slots::new(&stream, &bytes, converter.tensor(&image)?.bytes())?;
        converter.queue(&stream, &[slots.job(&image)])?;
        let (found, kept) = slots.tensor(&stream)?;
        let expected = tensor(&image, &bytes, &target, Order::ResizeFirst);
        let decoded = decode(target.dtype, &found);
        let (index, f, e, distance) = worst(&target, &decoded, &expected);
        furthest = furthest.max(distance);
        if distance > 1.0 || !kept {
            wrong += 1;
            let guard = if kept { "" } else { "; bytes around the tensor were written" };
            println!("case {case}: element {index} is {f}, the reference has {e}{guard}; {image:?} {target:?}");
        }
        // in steps of 8 bits as they are stored: the quantization alone leaves 58.9 dB
        if target.dtype == TensorDtype::U8 {
            squares += decoded.iter().zip(&expected).map(|(f, e)| (f - e.clamp(0.0, 255.0)).powi(2)).sum::<f64>();
            values += decoded.len();
        }
        let mut on_cpu = vec![0; found.len()];
        Converter::new(&image, &target)?.convert(&bytes, &mut on_cpu)?;
        other_bits += usize::from(found != on_cpu);
        // another picture into the same tensor, whose padding stays
        let other = noise(!case as u64, have as usize);
        stream.upload(&other, slots.source.span())?;
        converter.queue(&stream, &[CudaJob { padded: true, ..slots.job(&image) }])?;
        let (found, kept) = slots.tensor(&stream)?;
        Converter::new(&image, &target)?.convert(&other, &mut on_cpu)?;
        other_bits += usize::from(found != on_cpu || !kept);

        let mut passes = CudaSeparatePasses::new(gpu, &target)?;
        passes.queue(&stream, &[slots.job(&image)])?;
        let (found, kept) = slots.tensor(&stream)?;
        SeparatePasses::new(&image, &target)?.convert(&other, &mut on_cpu)?;
        wrong_passes += usize::from(found != on_cpu || !kept);
    }
    let psnr_db = 10.0 * (255f64.powi(2) * values as f64 / squares).log10();
    println!(
        "{CASES} frames of every kind: {wrong} wrong; the worst value {furthest:.3} of what is allowed; PSNR of the u8 tensors {psnr_db:.1} dB"
    );
    println!("against the same passes on the CPU: {other_bits} differ in a bit (fused), {wrong_passes} (separate)");
    let right = wrong == 0 && other_bits == 0 && wrong_passes == 0;
    let json = format!(
        "{{\"cases\": {CASES}, \"wrong\": {wrong}, \"worst_of_allowed\": {furthest:.4}, \"psnr_db\": {psnr_db:.2}, \
         \"not_the_cpus_bits\": {other_bits}, \"separate_not_the_cpus_bits\": {wrong_passes}}}"
    );
    Ok(Checked { right, json })
}
