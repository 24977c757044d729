//! The node.

use crate::config::Settings;
use millrace_frame::{Item, Payload, PayloadKind, TensorDesc, TensorLayout, Timebase, Timing};
use millrace_node::{Context, Input, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports};
use std::time::{Duration, Instant};

/// `faulty-node`.
pub(crate) struct FaultyNode {
    settings: Settings,
    items: u64,
    with_boxes: u64,
}

impl Node for FaultyNode {
    const NAME: &'static str = "faulty-node";
    const SUMMARY: &'static str = "hands tensors and detections on with one thing wrong, for tests";
    const PORTS: Ports = Ports {
        inputs: &[
            PortIn {
                name: "tensor",
                accepts: &[PayloadKind::Tensor],
                on_gpu: false,
                order: Order::Every,
                required: false,
                doc: "tensors in host memory",
            },
            PortIn {
                name: "detections",
                accepts: &[PayloadKind::Detections],
                on_gpu: false,
                order: Order::Every,
                required: false,
                doc: "detections",
            },
        ],
        outputs: &[
            PortOut { name: "tensor", carries: PayloadKind::Tensor, doc: "the tensors" },
            PortOut { name: "detections", carries: PayloadKind::Detections, doc: "the detections" },
        ],
    };
    type Settings = Settings;

    fn open(settings: Settings, _: &Context) -> Result<Self, NodeError> {
        if settings.refuse {
            return Err(NodeError::fatal("REFUSE is set: this node does not open"));
        }
        Ok(Self { settings, items: 0, with_boxes: 0 })
    }

    fn on_input(&mut self, _: &'static str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        self.items += 1;
        assert!(self.items != self.settings.crash_at, "CRASH_AT: item {}", self.items);
        let until = Instant::now() + Duration::from_micros(self.settings.delay_us);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        if every(self.settings.drop_item_every, self.items) {
            return Ok(());
        }
        if every(self.settings.lose_item_every, self.items) {
            return Err(NodeError::frame("sabotaged", input.source(), "LOSE_ITEM_EVERY is set"));
        }
        match input {
            Input::Frame(lease) => {
                let item = lease.item();
                let Payload::Tensor(tensor) = &item.payload else {
                    return Err(NodeError::fatal("'tensor' carried something else than a tensor"));
                };
                let Some(mut slot) = out.slot("tensor", &item.source, tensor.bytes())? else { return Ok(()) };
                shift(tensor, self.settings.shift_px, lease.bytes(), slot.bytes_mut());
                out.publish(slot, &Item::on_host(item.source.as_str(), item.seq, item.timing, item.payload.clone()))
            }
            Input::Detections(mut found) => {
                self.with_boxes += u64::from(!found.boxes.is_empty());
                if !found.boxes.is_empty() && every(self.settings.drop_box_every, self.with_boxes) {
                    found.boxes.remove(0);
                }
                let (pts_ns, capture_ns) = (found.pts_ns, found.capture_ns);
                let timing = Timing { pts_ns, timebase: Timebase::NANOSECONDS, capture_ns, ..Timing::default() };
                out.detections("detections", &found, timing)
            }
        }
    }
}

fn every(n: u64, count: u64) -> bool {
    n > 0 && count.is_multiple_of(n)
}

/// Moves the rows of each plane (nchw) or picture (nhwc) to the right; the first element fills the gap.
fn shift(tensor: &TensorDesc, shift_px: usize, from: &[u8], to: &mut [u8]) {
    let [_, _, third, fourth] = tensor.shape.map(|extent| extent as usize);
    let (row, pixel) = match tensor.layout {
        TensorLayout::Nchw => (fourth, 1),
        TensorLayout::Nhwc => (third * fourth, fourth),
    };
    let element_bytes = tensor.dtype.bytes() as usize;
    let (row_bytes, pixel_bytes) = (row * element_bytes, pixel * element_bytes);
    let gap_bytes = (shift_px * pixel_bytes).min(row_bytes);
    let bytes = tensor.bytes() as usize;
    for (from, to) in from[..bytes].chunks_exact(row_bytes).zip(to[..bytes].chunks_exact_mut(row_bytes)) {
        to[gap_bytes..].copy_from_slice(&from[..row_bytes - gap_bytes]);
        for gap in to[..gap_bytes].chunks_exact_mut(pixel_bytes) {
            gap.copy_from_slice(&from[..pixel_bytes]);
        }
    }
}
