//! The node: frames in, lines out.

use crate::config::Settings;
use crate::lines::Framemd5;
use millrace_frame::{Payload, PayloadKind};
use millrace_node::{Context, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports};

/// `frame-checksum`.
pub(crate) struct FrameChecksum {
    lines: Framemd5,
    metrics: Metrics,
}

impl Node for FrameChecksum {
    const NAME: &'static str = "frame-checksum";
    const SUMMARY: &'static str = "writes FFmpeg's framemd5 lines of the frames that arrive";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: true,
            order: Order::Every,
            required: true,
            doc: "images of any format, in host memory or on a GPU",
        }],
        outputs: &[],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let lines = Framemd5::open(&settings.path, cx.restarts() > 0).map_err(NodeError::fatal)?;
        Ok(Self { lines, metrics: cx.metrics().clone() })
    }

    fn on_input(&mut self, port: &str, input: Input, _out: &mut Outputs) -> Result<(), NodeError> {
        let Input::Frame(lease) = input else {
            return Err(NodeError::fatal(format!("'{port}' carried detections; an image is expected")));
        };
        let item = lease.item();
        let Payload::Image(image) = &item.payload else {
            let kind = item.payload.kind();
            return Err(NodeError::fatal(format!("'{port}' carried {kind:?}; an image is expected")));
        };
        // a golden file with a frame missing is wrong, so every fault ends the node
        let bytes = lease.on_host().map_err(NodeError::fatal)?;
        self.lines.frame(image, &bytes, &item.timing).map_err(NodeError::fatal)?;
        self.metrics.count("lines", &item.source, 1);
        Ok(())
    }

    fn drain(&mut self, _out: &mut Outputs) -> Result<(), NodeError> {
        self.lines.finish().map_err(NodeError::fatal)?;
        tracing::info!(frames = self.lines.frames(), "all checksums are on the disk");
        Ok(())
    }
}
