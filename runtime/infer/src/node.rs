//! The node around a [`Detector`].

use crate::{Detector, Engine};
use millrace_frame::PayloadKind;
use millrace_node::{Context, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports};
use std::time::Instant;

/// A detector as a node of the dataflow: `tensor` in, `detections` out, one for one.
pub struct InferNode<E> {
    detector: Detector<E>,
    metrics: Metrics,
}

impl<E: Engine> Node for InferNode<E> {
    const NAME: &'static str = E::NAME;
    const SUMMARY: &'static str = E::SUMMARY;
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "tensor",
            accepts: &[PayloadKind::Tensor],
            order: Order::Newest,
            required: true,
            doc: "The model's input, as `input` of model.yml says: f32 or u8, batch 1, host memory.",
        }],
        outputs: &[PortOut {
            name: "detections",
            carries: PayloadKind::Detections,
            doc: "The boxes of each frame in display pixels of its source, by falling score; also where there are none.",
        }],
    };
    type Settings = E::Settings;

    fn open(settings: E::Settings, cx: &Context) -> Result<Self, NodeError> {
        let detector = Detector::open(&settings).map_err(NodeError::fatal)?;
        Ok(Self { detector, metrics: cx.metrics().clone() })
    }

    fn on_input(&mut self, _port: &str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        let Input::Frame(lease) = input else {
            return Err(NodeError::fatal("input 'tensor' got detections; put nv12-to-rgb before this node"));
        };
        let item = lease.item();
        let begun = Instant::now();
        let (found, not_finite, over_limit) = self.detector.detect(item, lease.bytes()).map_err(|e| {
            if e.is_of_one_frame() { NodeError::frame("inference", &item.source, e) } else { NodeError::fatal(e) }
        })?;
        let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.metrics.observe_ns("inference", &item.source, took_ns);
        for (name, n) in [("candidates_not_finite", not_finite), ("candidates_over_limit", over_limit)] {
            if n > 0 {
                self.metrics.count(name, &item.source, n);
            }
        }
        out.detections("detections", &found, item.timing)
    }
}
