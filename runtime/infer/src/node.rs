//! The node around a [`Detector`].

use crate::workers::{Answer, Workers};
use crate::{Common, DetectError, Detector, Engine, Found};
use millrace_frame::PayloadKind;
use millrace_node::{Context, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports};
use std::time::Duration;

/// A detector as a node of the dataflow: `tensor` in, `detections` out, one for one and in order.
pub struct InferNode<E> {
    workers: Workers<E>,
    batch_wait: Option<Duration>,
    metrics: Metrics,
    /// The user knows that the boxes are most likely wrong.
    doubted: bool,
}

impl<E: Engine> Node for InferNode<E> {
    const NAME: &'static str = E::NAME;
    const SUMMARY: &'static str = E::SUMMARY;
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "tensor",
            accepts: &[PayloadKind::Tensor],
            on_gpu: E::ON_GPU,
            order: Order::Newest,
            required: true,
            doc: if E::ON_GPU {
                "The model's input, as `input` of model.yml says: f32, f16 or u8, batch 1, in host memory or on the node's GPU."
            } else {
                "The model's input, as `input` of model.yml says: f32, f16 or u8, batch 1, host memory."
            },
        }],
        outputs: &[PortOut {
            name: "detections",
            carries: PayloadKind::Detections,
            doc: "The boxes of each frame in display pixels of its source, by falling score; also where there are none.",
        }],
    };
    type Settings = E::Settings;

    fn open(settings: E::Settings, cx: &Context) -> Result<Self, NodeError> {
        let settings = E::in_flow(settings, cx.flow());
        let (workers, threads) = E::share(&settings, cx.flow()).map_err(NodeError::fatal)?;
        let open = || Detector::open(&settings, threads).map_err(NodeError::fatal);
        let here = open()?;
        if let Some(about) = &here.model().about {
            cx.note(format!("{}: {about}", here.model().name));
        }
        let others = (1..workers).map(|_| open()).collect::<Result<_, _>>()?;
        let workers = Workers::start(here, others)
            .map_err(|e| NodeError::fatal(format!("no thread for {workers} WORKERS: {e}")))?;
        Ok(Self {
            workers,
            batch_wait: batch_wait(E::common(&settings)),
            metrics: cx.metrics().clone(),
            doubted: false,
        })
    }

    fn change(&mut self, settings: E::Settings) -> Result<(), String> {
        let common = E::common(&settings);
        let thresholds = common.thresholds(self.workers.model().thresholds).map_err(|e| e.to_string())?;
        self.workers.set_thresholds(thresholds);
        self.batch_wait = batch_wait(common);
        Ok(())
    }

    fn batch(&self) -> usize {
        self.workers.most()
    }

    fn batch_wait(&self) -> Option<Duration> {
        self.batch_wait
    }

    fn on_input(&mut self, port: &'static str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        self.on_batch(vec![(port, input)], out).into_iter().collect()
    }

    fn on_batch(&mut self, batch: Vec<(&'static str, Input)>, out: &mut Outputs) -> Vec<Result<(), NodeError>> {
        let leases = batch.into_iter().filter_map(|(_, input)| match input {
            Input::Frame(lease) => Some(lease),
            Input::Detections(_) => None, // the harness refuses and counts what PORTS does not name
        });
        let answers = self.workers.detect(leases.collect());
        answers.into_iter().map(|answer| self.publish(answer, out)).collect()
    }
}

/// `None` where nothing is set: as long as pays.
fn batch_wait(common: &Common) -> Option<Duration> {
    common.batch_wait_ms.map(|ms| Duration::from_millis(ms.into()))
}

impl<E: Engine> InferNode<E> {
    /// Tells the user that the boxes are most likely wrong, once for all cameras and workers.
    fn doubt(&mut self, text: impl FnOnce() -> String) {
        if !std::mem::replace(&mut self.doubted, true) {
            self.metrics.note(text());
        }
    }

    fn publish(&mut self, answer: Option<Answer>, out: &mut Outputs) -> Result<(), NodeError> {
        let Some(Answer { lease, found, took_ns }) = answer else {
            return Err(NodeError::fatal("a worker has panicked; its message stands above"));
        };
        let item = lease.item();
        let found = match found {
            Ok(found) => found,
            Err(e) if e.is_of_one_frame() => {
                if matches!(e, DetectError::Head { .. }) {
                    self.doubt(|| e.to_string());
                }
                return Err(NodeError::frame("inference", &item.source, e));
            }
            Err(e) => return Err(NodeError::fatal(e)),
        };
        let Found { detections, not_finite, over_limit, impossible, doubt, .. } = found;
        if let Some(text) = doubt {
            self.doubt(|| text);
        }
        self.metrics.observe_ns("inference", &item.source, took_ns);
        let counts = [
            ("candidates_not_finite", not_finite),
            ("candidates_over_limit", over_limit),
            ("candidates_impossible", impossible),
        ];
        for (name, n) in counts {
            if n > 0 {
                self.metrics.count(name, &item.source, n);
            }
        }
        out.detections("detections", &detections, item.timing)
    }
}
