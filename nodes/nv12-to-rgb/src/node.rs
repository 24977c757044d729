//! One frame in, one tensor out.

use crate::config::Settings;
use crate::gpu::OnGpu;
use millrace_cuda::Gpu;
use millrace_frame::{ImageDesc, Item, Payload, PayloadKind, TensorDesc};
use millrace_kernels::{ConvertError, Converter, Placement, SeparatePasses, Target};
use millrace_node::{
    Context, Findings, FrameLease, GpuSettings, Input, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// The node. In host memory it has a converter for each camera, made anew when the camera's geometry or colour changes;
/// on a GPU one for all.
pub(crate) struct Nv12ToRgb {
    target: Target,
    fused: bool,
    batch: usize,
    batch_wait: Option<Duration>,
    gpu: GpuSettings,
    cx: Context,
    on_host: HashMap<String, Conversion>,
    on_gpu: Vec<OnGpu>,
}

/// The two arms of `FUSED`, in host memory.
enum Conversion {
    Fused(Box<Converter>),
    Separate(Box<SeparatePasses>),
}

impl Conversion {
    fn new(fused: bool, source: &ImageDesc, target: &Target) -> Result<Self, ConvertError> {
        Ok(match fused {
            true => Self::Fused(Box::new(Converter::new(source, target)?)),
            false => Self::Separate(Box::new(SeparatePasses::new(source, target)?)),
        })
    }
    fn fits(&self, source: &ImageDesc) -> bool {
        match self {
            Self::Fused(converter) => converter.fits(source),
            Self::Separate(passes) => passes.fits(source),
        }
    }
    fn tensor(&self) -> TensorDesc {
        match self {
            Self::Fused(converter) => converter.tensor(),
            Self::Separate(passes) => passes.tensor(),
        }
    }
    fn moved_bytes(&self) -> u64 {
        match self {
            Self::Fused(_) => 0,
            Self::Separate(passes) => passes.moved_bytes(),
        }
    }
    fn placement(&self) -> Placement {
        match self {
            Self::Fused(converter) => converter.placement(),
            Self::Separate(passes) => passes.placement(),
        }
    }
    fn convert(&mut self, source: &[u8], tensor: &mut [u8], padded: bool) -> Result<(), ConvertError> {
        match (self, padded) {
            (Self::Fused(converter), false) => converter.convert(source, tensor),
            (Self::Fused(converter), true) => converter.convert_padded(source, tensor),
            (Self::Separate(passes), false) => passes.convert(source, tensor),
            (Self::Separate(passes), true) => passes.convert_padded(source, tensor),
        }
    }
}

impl Node for Nv12ToRgb {
    const NAME: &'static str = "nv12-to-rgb";
    const SUMMARY: &'static str =
        "Turns decoded frames into a model's input tensor: colour, letterbox, normalization and layout in one pass.";
    const SHARES_PROCESS: bool = true;
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: true,
            order: Order::Newest,
            required: true,
            doc: "Frames in host memory or on a GPU: nv12, p016, i420, bgr24 or rgb24, of any size, pitch and crop.",
        }],
        outputs: &[PortOut {
            name: "tensor",
            carries: PayloadKind::Tensor,
            doc: "The model's input (f32, f16 or u8; nchw or nhwc; batch 1, 3 channels), with the way back to the source. It lies where the frame lay.",
        }],
    };
    type Settings = Settings;

    fn check(settings: &Settings, findings: &mut Findings<'_>) {
        settings.check(findings);
    }

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let target = settings.target().map_err(NodeError::fatal)?;
        let batch = settings.batch as usize;
        let (fused, gpu, batch_wait) = (settings.fused, settings.gpu, settings.batch_wait());
        Ok(Self { target, fused, batch, batch_wait, gpu, cx: cx.clone(), on_host: HashMap::new(), on_gpu: Vec::new() })
    }

    fn change(&mut self, settings: Settings) -> Result<(), String> {
        (self.batch_wait, self.gpu) = (settings.batch_wait(), settings.gpu);
        self.cx.set_sync(settings.gpu.sync);
        Ok(())
    }

    fn expect_frames_on(&mut self, device: u32) -> Result<(), NodeError> {
        let gpu = Gpu::open(device).map_err(NodeError::fatal)?;
        self.index_of(&gpu).map(drop)
    }

    fn batch_wait(&self) -> Option<Duration> {
        // on a CPU frames are converted one by one, so none gains by waiting for others
        self.batch_wait.or_else(|| self.on_gpu.is_empty().then_some(Duration::ZERO))
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn on_input(&mut self, port: &'static str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        self.on_batch(vec![(port, input)], out).into_iter().collect()
    }

    fn on_batch(&mut self, batch: Vec<(&'static str, Input)>, out: &mut Outputs) -> Vec<Result<(), NodeError>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut launches: Vec<Launch> = Vec::new();
        for (place, (_, input)) in batch.into_iter().enumerate() {
            let on_gpu = image_of(input).and_then(|(frame, image)| match frame.gpu() {
                None => self.convert_on_host(&frame, &image, out).map(|()| None),
                Some(gpu) => self.index_of(gpu).map(|gpu| Some((gpu, frame.clone(), image))),
            });
            results.push(on_gpu.map(|on_gpu| {
                let Some((gpu, frame, image)) = on_gpu else { return };
                let at = launches.iter().position(|launch| launch.gpu == gpu).unwrap_or_else(|| {
                    launches.push(Launch { gpu, frames: Vec::new(), places: Vec::new() });
                    launches.len() - 1
                });
                launches[at].frames.push((frame, image));
                launches[at].places.push(place);
            }));
        }
        for Launch { gpu, frames, places } in launches {
            for (place, result) in places.into_iter().zip(self.on_gpu[gpu].convert(frames, out)) {
                results[place] = result;
            }
        }
        results
    }
}

/// The frames of a batch that lie on one GPU.
struct Launch {
    /// Its place in `on_gpu`.
    gpu: usize,
    frames: Vec<(FrameLease, ImageDesc)>,
    /// Where their results belong.
    places: Vec<usize>,
}

fn image_of(input: Input) -> Result<(FrameLease, ImageDesc), NodeError> {
    let Input::Frame(frame) = input else {
        return Err(NodeError::fatal("port 'frame' accepts images, but detections came; check the graph's wiring"));
    };
    let item = frame.item();
    let Payload::Image(image) = &item.payload else {
        let why = format!("expected an image, but a {:?} came", item.payload.kind());
        return Err(NodeError::frame("not_an_image", &item.source, why));
    };
    let image = image.clone();
    Ok((frame, image))
}

impl Nv12ToRgb {
    /// The GPU's place in `on_gpu`, where its kernels are loaded now if they are not there.
    fn index_of(&mut self, gpu: &Gpu) -> Result<usize, NodeError> {
        if let Some(at) = self.on_gpu.iter().position(|known| known.is_on(gpu)) {
            return Ok(at);
        }
        self.on_gpu.push(OnGpu::new(gpu, self.gpu, self.fused, &self.target, &self.cx)?);
        self.cx.metrics().gauge("gpus", "", self.on_gpu.len() as i64);
        Ok(self.on_gpu.len() - 1)
    }

    fn convert_on_host(&mut self, frame: &FrameLease, image: &ImageDesc, out: &mut Outputs) -> Result<(), NodeError> {
        let item = frame.item();
        let source = item.source.as_str();
        let cannot = |error: ConvertError| NodeError::frame("convert", source, error);
        let (fused, target) = (self.fused, &self.target);
        let make = || {
            let way = if fused { "fused" } else { "separate passes" };
            tracing::info!(source, format = %image.format, size = %image.display_size(), way, "converting");
            Conversion::new(fused, image, target).map_err(cannot)
        };
        let conversion = match self.on_host.entry(source.to_owned()) {
            Entry::Vacant(new) => new.insert(make()?),
            Entry::Occupied(known) if known.get().fits(image) => known.into_mut(),
            Entry::Occupied(mut known) => {
                known.insert(make()?);
                known.into_mut()
            }
        };
        let tensor = conversion.tensor();
        let Some(mut slot) = out.slot("tensor", source, tensor.bytes())? else { return Ok(()) };
        // a slot keeps its padding until a picture is placed in another way
        let placed = conversion.placement().id();
        let padded = slot.take_contents() == placed;
        conversion.convert(frame.bytes(), slot.bytes_mut(), padded).map_err(cannot)?;
        slot.set_contents(placed);
        self.cx.metrics().moved(source, conversion.moved_bytes());
        let done = Item::on_host(source, item.seq, item.timing, Payload::Tensor(tensor));
        out.publish(slot, &done)
    }
}
