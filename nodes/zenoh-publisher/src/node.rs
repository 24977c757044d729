//! The node: encodes, and hands over to the outbox.

use crate::config::{Encodings, Settings};
use crate::key::chunk;
use crate::link::{Link, configuration};
use crate::message::{self, MessageError};
use crate::outbox::{Lost, Outbox, Put};
use millrace_frame::{CameraStatus, PayloadKind};
use millrace_node::{
    Cameras, Context, Findings, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports, Progress, StopFlag,
};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longer than zenoh's own search for a router, shorter than a user's patience.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// A stop has to be over within three seconds, all nodes together.
const FINISH_WITHIN: Duration = Duration::from_millis(1500);
/// How often it is looked whether a camera has fallen silent.
const LOOK: Duration = Duration::from_millis(100);
/// Failed puts are counted one by one and logged this often at most.
const LOG_FAILURES: Duration = Duration::from_secs(10);

/// `zenoh-publisher`.
pub(crate) struct ZenohPublisher {
    outbox: Outbox,
    encodings: Encodings,
    cameras: Cameras,
    looked: Instant,
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

    fn check(settings: &Settings, findings: &mut Findings<'_>) {
        settings.check(findings);
    }

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let graph = chunk(&settings.graph).ok_or_else(|| NodeError::fatal("GRAPH is empty"))?;
        let config = configuration(&settings).map_err(|(_, why)| NodeError::fatal(why))?;
        let keys = format!("millrace/{graph}/*/detections");
        let (metrics, failures) = (cx.metrics().clone(), cx.metrics().clone());
        let outbox = Outbox::start(
            settings.queue_frames as usize,
            settings.reliable,
            OPEN_WITHIN,
            move || Link::open(config, graph),
            failed_put(failures),
        )
        .map_err(NodeError::fatal)?;
        cx.note(keys);
        let (encodings, cameras, looked) = (settings.encodings, Cameras::default(), Instant::now());
        Ok(Self { outbox, encodings, cameras, looked, metrics, stop: cx.stopping() })
    }

    fn on_camera(&mut self, status: &CameraStatus) {
        if self.cameras.report(status, Instant::now()) {
            self.put_state(&status.source);
        }
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
        let now = Instant::now();
        if self.cameras.arrived(&found.source, found.capture_ns, now) {
            self.put_state(&found.source);
        }
        self.look(now);
        let put = Put { source: found.source.as_str().into(), payloads };
        if let Some(Lost { source }) = self.outbox.push(put, || self.stop.is_set()) {
            self.metrics.drop("zenoh_congested", &source, 1);
        }
        self.metrics.count("puts", &found.source, 1);
        Ok(())
    }

    fn produce(&mut self, _out: &mut Outputs) -> Result<Progress, NodeError> {
        self.look(Instant::now());
        Ok(Progress::Passive)
    }

    fn drain(&mut self, _out: &mut Outputs) -> Result<(), NodeError> {
        for Lost { source } in self.outbox.finish(FINISH_WITHIN) {
            self.metrics.drop("zenoh_unsent", &source, 1);
        }
        Ok(())
    }
}

impl ZenohPublisher {
    /// Puts the states of cameras that have fallen silent.
    fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) >= LOOK {
            self.looked = now;
            for source in self.cameras.look(now) {
                self.put_state(&source);
            }
        }
    }

    fn put_state(&self, source: &str) {
        if let Some(status) = self.cameras.get(source).filter(|_| !source.is_empty()) {
            self.outbox.push_state(status);
        }
    }
}

/// What is done about each put that zenoh refuses.
fn failed_put(metrics: Metrics) -> impl Fn(&str, &str) {
    let logged: Mutex<Option<Instant>> = Mutex::new(None);
    move |source, error| {
        metrics.drop("zenoh_put_failed", source, 1);
        let Ok(mut logged) = logged.lock() else { return };
        if logged.is_none_or(|at| at.elapsed() >= LOG_FAILURES) {
            *logged = Some(Instant::now());
            tracing::warn!("camera '{source}': a put failed ({error}); more are counted as zenoh_put_failed");
        }
    }
}
