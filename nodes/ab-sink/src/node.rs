//! The node: anything in, a record of each arrival out.

use crate::config::Settings;
use crate::records::{self, Record};
use millrace_frame::{PayloadKind, monotonic_ns};
use millrace_node::{Context, Input, Node, NodeError, Order, Outputs, PortIn, Ports};

/// `ab-sink`.
pub(crate) struct AbSink {
    settings: Settings,
    records: Vec<Record>,
    written: bool,
}

/// A port that accepts everything, in any memory.
const fn port(name: &'static str) -> PortIn {
    PortIn {
        name,
        accepts: &[PayloadKind::Detections, PayloadKind::Tensor, PayloadKind::Image, PayloadKind::Packet],
        on_gpu: true,
        order: Order::Every,
        required: false,
        doc: "anything that an arm gives out",
    }
}

impl Node for AbSink {
    const NAME: &'static str = "ab-sink";
    const SUMMARY: &'static str = "records what arrives and when, for comparisons of graphs";
    const PORTS: Ports = Ports {
        inputs: &[
            port("in0"),
            port("in1"),
            port("in2"),
            port("in3"),
            port("in4"),
            port("in5"),
            port("in6"),
            port("in7"),
            port("in8"),
            port("in9"),
            port("in10"),
            port("in11"),
            port("in12"),
            port("in13"),
            port("in14"),
            port("in15"),
        ],
        outputs: &[],
    };
    type Settings = Settings;

    fn open(settings: Settings, _: &Context) -> Result<Self, NodeError> {
        // a place that cannot be written is better known before the first frame than after the last
        records::write(&settings.path, &[]).map_err(|e| cannot_write(&settings, &e))?;
        // room for an hour of a camera, so that no growth of the list stands in what is measured
        Ok(Self { settings, records: Vec::with_capacity(100_000), written: false })
    }

    fn on_input(&mut self, _: &'static str, input: Input, _: &mut Outputs) -> Result<(), NodeError> {
        let record = match input {
            Input::Frame(lease) => {
                lease.complete()?;
                let item = lease.item();
                Record {
                    source: item.source.clone(),
                    seq: item.seq,
                    pts_ns: item.timing.pts_ns,
                    capture_ns: item.timing.arrival_ns,
                    arrival_ns: monotonic_ns(),
                    boxes: None,
                }
            }
            Input::Detections(found) => Record {
                source: found.source,
                seq: found.seq,
                pts_ns: found.pts_ns,
                capture_ns: found.arrival_ns,
                arrival_ns: monotonic_ns(),
                boxes: self.settings.boxes.then_some(found.boxes),
            },
        };
        self.records.push(record);
        Ok(())
    }

    fn drain(&mut self, _: &mut Outputs) -> Result<(), NodeError> {
        self.written = true;
        records::write(&self.settings.path, &self.records).map_err(|e| cannot_write(&self.settings, &e))
    }
}

impl Drop for AbSink {
    /// A graph that is stopped drains nothing; what arrived until then has been measured all the same.
    fn drop(&mut self) {
        if !self.written
            && let Err(e) = records::write(&self.settings.path, &self.records)
        {
            tracing::error!("{}", cannot_write(&self.settings, &e));
        }
    }
}

fn cannot_write(settings: &Settings, e: &std::io::Error) -> NodeError {
    NodeError::fatal(format!("PATH: the records cannot be written to {}: {e}", settings.path.display()))
}
