//! The node: detections in, lines out.

use crate::config::Settings;
use crate::lines::JsonLines;
use millrace_frame::PayloadKind;
use millrace_node::{Context, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports};

/// `jsonl-writer`.
pub(crate) struct JsonlWriter {
    lines: JsonLines,
    metrics: Metrics,
}

impl Node for JsonlWriter {
    const NAME: &'static str = "jsonl-writer";
    const SUMMARY: &'static str = "writes detections to a file, one JSON line a frame";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "detections",
            accepts: &[PayloadKind::Detections],
            on_gpu: false,
            order: Order::Every,
            required: true,
            doc: "what to write; frames without boxes too",
        }],
        outputs: &[],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        // a writer that was started again goes on behind what it wrote before
        let append = settings.append || cx.restarts() > 0;
        let lines = JsonLines::open(&settings.path, append).map_err(NodeError::fatal)?;
        Ok(Self { lines, metrics: cx.metrics().clone() })
    }

    fn on_input(&mut self, _port: &str, input: Input, _out: &mut Outputs) -> Result<(), NodeError> {
        let Input::Detections(found) = input else {
            return Err(NodeError::fatal("'detections' carried something else than detections"));
        };
        // a batch job that lost a frame has failed: every error here ends the node, and so the run, with exit code 1
        self.lines.write(&found).map_err(NodeError::fatal)?;
        self.metrics.count("lines", &found.source, 1);
        Ok(())
    }

    fn drain(&mut self, _out: &mut Outputs) -> Result<(), NodeError> {
        self.lines.finish().map_err(NodeError::fatal)?;
        tracing::info!(lines = self.lines.lines(), "all lines are on the disk");
        Ok(())
    }
}
