//! Frames that lie on a GPU: one launch for those of all cameras that are there at once.

use millrace_cuda::{DeviceMemory, Gpu, Span};
use millrace_frame::{Colour, ImageDesc, Item, Payload, PixelFormat, Size, TensorDesc};
use millrace_kernels::cuda::{CudaConverter, CudaJob, CudaSeparatePasses};
use millrace_kernels::{Target, place};
use millrace_node::{Context, DeviceSlotMut, FrameLease, GpuSettings, Metrics, NodeError, Outputs, Queue};

/// A stream on one GPU and the kernels there. Tensors come out on the GPU that their frames lie on.
pub(crate) struct OnGpu {
    queue: Queue,
    conversion: Conversion,
    target: Target,
    metrics: Metrics,
}

/// A frame whose tensor has a slot.
struct Prepared {
    from: Span,
    tensor: TensorDesc,
    slot: DeviceSlotMut,
    /// Where the picture goes, and whether the slot has its padding from a picture that went there before.
    placed: u64,
    padded: bool,
}

/// The two arms of `FUSED`.
enum Conversion {
    Fused(CudaConverter),
    Separate(Box<CudaSeparatePasses>),
}

impl OnGpu {
    /// Loads the kernels, which the driver compiles the first time on a machine, and launches them once.
    pub(crate) fn new(
        gpu: &Gpu,
        settings: GpuSettings,
        fused: bool,
        target: &Target,
        cx: &Context,
    ) -> Result<Self, NodeError> {
        let conversion = match fused {
            true => CudaConverter::new(gpu, target).map(Conversion::Fused),
            false => CudaSeparatePasses::new(gpu, target).map(|passes| Conversion::Separate(Box::new(passes))),
        };
        let conversion = conversion.map_err(NodeError::fatal)?;
        tracing::info!(gpu = gpu.name(), way = if fused { "fused" } else { "separate passes" }, "converting");
        let mut this =
            Self { queue: Queue::new(gpu, settings, cx)?, conversion, target: *target, metrics: cx.metrics().clone() };
        this.warm_up()?;
        Ok(this)
    }

    /// Converts a picture of 2x2 pixels into memory of its own: what the driver loads or compiles at a kernel's first launch is
    /// there when the first frame comes. Not counted.
    fn warm_up(&mut self) -> Result<(), NodeError> {
        let (image, bytes) = ImageDesc::packed(PixelFormat::Nv12, Size::new(2, 2), Colour::assumed_for_height(2), 1);
        let stream = self.queue.stream();
        let tensor = match &self.conversion {
            Conversion::Fused(converter) => converter.tensor(&image),
            Conversion::Separate(passes) => passes.tensor(&image),
        };
        let tensor_bytes = tensor.map_err(NodeError::fatal)?.bytes();
        let memory = |bytes, what| DeviceMemory::allocate(stream.gpu(), bytes, what).map_err(NodeError::fatal);
        let (from, to) = (memory(bytes, "a picture to begin with")?, memory(tensor_bytes, "a tensor to begin with")?);
        stream.fill(from.span(), 0).map_err(NodeError::fatal)?;
        let job = [CudaJob { source: &image, from: from.span(), to: to.span(), padded: false }];
        let queued = match &mut self.conversion {
            Conversion::Fused(converter) => converter.queue(stream, &job),
            Conversion::Separate(passes) => passes.queue(stream, &job),
        };
        // before the memory goes
        let done = stream.synchronize();
        queued.map_err(NodeError::fatal)?;
        done.map_err(NodeError::fatal)
    }

    pub(crate) fn is_on(&self, gpu: &Gpu) -> bool {
        self.queue.gpu().uuid() == gpu.uuid()
    }

    /// `None` where no slot is free.
    fn prepare(&self, lease: &FrameLease, image: &ImageDesc, out: &mut Outputs) -> Result<Option<Prepared>, NodeError> {
        let source = lease.item().source.as_str();
        let tensor = match &self.conversion {
            Conversion::Fused(converter) => converter.tensor(image),
            Conversion::Separate(passes) => passes.tensor(image),
        };
        let tensor = tensor.map_err(|e| NodeError::frame("convert", source, e))?;
        let from = lease.span(self.queue.stream())?;
        let slot = out.device_slot("tensor", source, tensor.bytes(), &self.queue)?;
        Ok(slot.map(|mut slot| {
            let placed = place(image.display_size(), self.target.size, self.target.fit).id();
            let padded = slot.take_contents() == placed;
            Prepared { from, tensor, slot, placed, padded }
        }))
    }

    /// Converts the frames and publishes their tensors, each with its own result.
    pub(crate) fn convert(
        &mut self,
        frames: Vec<(FrameLease, ImageDesc)>,
        out: &mut Outputs,
    ) -> Vec<Result<(), NodeError>> {
        let mut results: Vec<Result<(), NodeError>> = Vec::with_capacity(frames.len());
        let mut ready = Vec::with_capacity(frames.len());
        for (lease, image) in frames {
            let index = results.len();
            results.push(match self.prepare(&lease, &image, out) {
                Ok(Some(prepared)) => {
                    ready.push((index, lease, image, prepared));
                    Ok(())
                }
                Ok(None) => Ok(()), // no slot: counted
                Err(e) => Err(e),
            });
        }
        let jobs: Vec<CudaJob<'_>> = ready
            .iter()
            .map(|(_, _, image, p)| CudaJob { source: image, from: p.from, to: p.slot.span(), padded: p.padded })
            .collect();
        let queued = match (&mut self.conversion, jobs.is_empty()) {
            (_, true) => Ok(()),
            (Conversion::Fused(converter), _) => converter.queue(self.queue.stream(), &jobs),
            (Conversion::Separate(passes), _) => passes.queue(self.queue.stream(), &jobs),
        };
        drop(jobs);
        // of all cameras together: with batches there are fewer than frames
        self.metrics.count("launches", "", u64::from(!ready.is_empty()));
        if let Conversion::Separate(passes) = &self.conversion {
            ready.iter().for_each(|(_, lease, image, ..)| {
                self.metrics.moved(&lease.item().source, passes.moved_bytes(image));
            });
        }
        for (index, lease, _, Prepared { tensor, mut slot, placed, .. }) in ready {
            let item = lease.item();
            results[index] = match &queued {
                Err(e) => Err(NodeError::frame("convert", &item.source, format!("frame {}: {e}", item.seq))),
                Ok(()) => {
                    slot.set_contents(placed);
                    let done = Item::on_host(item.source.as_str(), item.seq, item.timing, Payload::Tensor(tensor));
                    out.publish_device(slot, done, &self.queue)
                }
            };
            if let Err(e) = out.hold(lease, &self.queue) {
                results[index] = Err(e);
            }
        }
        results
    }
}
