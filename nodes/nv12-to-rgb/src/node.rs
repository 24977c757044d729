//! One frame in, one tensor out.

use crate::config::Settings;
use millrace_frame::{Device, ImageDesc, Item, Payload, PayloadKind, TensorDesc};
use millrace_kernels::{ConvertError, Converter, SeparatePasses, Target};
use millrace_node::{Context, Input, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The node: a converter per camera, made anew when the camera's geometry or colour changes.
pub(crate) struct Nv12ToRgb {
    target: Target,
    fused: bool,
    converters: HashMap<String, Conversion>,
}

/// The two arms of `FUSED`.
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
    fn convert(&mut self, source: &[u8], tensor: &mut [u8]) -> Result<(), ConvertError> {
        match self {
            Self::Fused(converter) => converter.convert(source, tensor),
            Self::Separate(passes) => passes.convert(source, tensor),
        }
    }
}

impl Node for Nv12ToRgb {
    const NAME: &'static str = "nv12-to-rgb";
    const SUMMARY: &'static str =
        "Turns decoded frames into a model's input tensor: colour, letterbox, normalization and layout in one pass.";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: false,
            order: Order::Newest,
            required: true,
            doc: "Frames in host memory: nv12, p016, i420, bgr24 or rgb24, of any size, pitch and crop.",
        }],
        outputs: &[PortOut {
            name: "tensor",
            carries: PayloadKind::Tensor,
            doc: "The model's input (f32, f16 or u8; nchw or nhwc; batch 1, 3 channels), with the way back to the source.",
        }],
    };
    type Settings = Settings;

    fn open(settings: Settings, _: &Context) -> Result<Self, NodeError> {
        let target = settings.target().map_err(NodeError::fatal)?;
        Ok(Self { target, fused: settings.fused, converters: HashMap::new() })
    }

    fn on_input(&mut self, _: &str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        let Input::Frame(frame) = input else {
            return Err(NodeError::fatal("port 'frame' accepts images, but detections came; check the graph's wiring"));
        };
        let item = frame.item();
        let source = item.source.as_str();
        let Payload::Image(image) = &item.payload else {
            let kind = item.payload.kind();
            return Err(NodeError::frame("not_an_image", source, format!("expected an image, but a {kind:?} came")));
        };
        if let Device::Cuda(ordinal) = item.device {
            let text = format!("the frame lies on CUDA device {ordinal}; this build converts frames in host memory");
            return Err(NodeError::frame("device", source, text));
        }
        let cannot = |error: ConvertError| NodeError::frame("convert", source, error);
        let (fused, target) = (self.fused, &self.target);
        let make = || {
            let way = if fused { "fused" } else { "separate passes" };
            tracing::info!(source, format = %image.format, size = %image.display_size(), way, "converting");
            Conversion::new(fused, image, target).map_err(cannot)
        };
        let conversion = match self.converters.entry(source.to_owned()) {
            Entry::Vacant(new) => new.insert(make()?),
            Entry::Occupied(known) if known.get().fits(image) => known.into_mut(),
            Entry::Occupied(mut known) => {
                known.insert(make()?);
                known.into_mut()
            }
        };
        let tensor = conversion.tensor();
        let Some(mut slot) = out.slot("tensor", source, tensor.bytes())? else { return Ok(()) };
        conversion.convert(frame.bytes(), slot.bytes_mut()).map_err(cannot)?;
        let done = Item::on_host(source, item.seq, item.timing, Payload::Tensor(tensor));
        out.publish(slot, &done)
    }
}
