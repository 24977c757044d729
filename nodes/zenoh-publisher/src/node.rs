//! The node: encodes, and hands over to the outbox.

use crate::config::{Encodings, Settings};
use crate::key::chunk;
use crate::link::{Link, configuration};
use crate::message::{self, MessageError};
use crate::outbox::{Lost, Outbox, Put};
use millrace_frame::PayloadKind;
use millrace_node::{Context, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports, StopFlag};
use std::time::Duration;

/// Longer than zenoh's own search for a router, shorter than a user's patience.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// A stop has to be over within three seconds, all nodes together.
const FINISH_WITHIN: Duration = Duration::from_millis(1500);

/// `zenoh-publisher`.
pub(crate) struct ZenohPublisher {
    outbox: Outbox,
    encodings: Encodings,
    metrics: Metrics,
    stop: StopFlag,
}

impl Node for ZenohPublisher {
    const NAME: &'static str = "zenoh-publisher";
    const SUMMARY: &'static str = "publishes detections on zenoh keys, as JSON and Arrow";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "detections",
            accepts: &[PayloadKind::Detections],
            on_gpu: false,
            order: Order::Every,
            required: true,
            doc: "what to publish",
        }],
        outputs: &[],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let graph = chunk(&settings.graph)
            .ok_or_else(|| NodeError::fatal("GRAPH is empty: it is the second part of every key, such as 'yard'"))?;
        let config = configuration(&settings).map_err(NodeError::fatal)?;
        let keys = format!("millrace/{graph}/*/detections");
        let (metrics, failures) = (cx.metrics().clone(), cx.metrics().clone());
        let outbox = Outbox::start(
            settings.queue_frames as usize,
            settings.reliable,
            OPEN_WITHIN,
            move || Link::open(config, graph),
            move |source, error| {
                tracing::debug!(source, error, "a put failed");
                failures.drop("zenoh_put_failed", source, 1);
            },
        )
        .map_err(NodeError::fatal)?;
        cx.note(keys);
        Ok(Self { outbox, encodings: settings.encodings, metrics, stop: cx.stopping() })
    }

    fn on_input(&mut self, _port: &str, input: Input, _out: &mut Outputs) -> Result<(), NodeError> {
        let Input::Detections(found) = input else {
            return Err(NodeError::fatal("'detections' carried something else than detections"));
        };
        let payloads = message::encode(&found, self.encodings).map_err(|e| {
            let cause = match e {
                MessageError::NotFinite { .. } => "not_finite",
                MessageError::Json { .. } | MessageError::Arrow { .. } => "not_encoded",
            };
            NodeError::frame(cause, &found.source, e)
        })?;
        if found.source.is_empty() {
            return Err(NodeError::frame("source_empty", "", "a camera without an id has no key"));
        }
        let put = Put { source: found.source.as_str().into(), payloads };
        if let Some(Lost { source }) = self.outbox.push(put, || self.stop.is_set()) {
            self.metrics.drop("zenoh_congested", &source, 1);
        }
        self.metrics.count("puts", &found.source, 1);
        Ok(())
    }

    fn drain(&mut self, _out: &mut Outputs) -> Result<(), NodeError> {
        for Lost { source } in self.outbox.finish(FINISH_WITHIN) {
            self.metrics.drop("zenoh_unsent", &source, 1);
        }
        Ok(())
    }
}
