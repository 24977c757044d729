//! The node around a [`Detector`].

use crate::fit::foreseen;
use crate::order::{Frame, InOrder};
use crate::workers::{Answer, EngineTime, Event, Workers};
use crate::{DetectError, DetectorSettings, Engine, Found};
use millrace_detect::model::Thresholds;
use millrace_frame::{PayloadKind, counted};
use millrace_node::{Context, Findings, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// How long the threads may still take when the node ends: a stop is over within 3 s, of which the harness takes one.
const PATIENCE: Duration = Duration::from_secs(1);

/// A detector as a node of the dataflow: `tensor` in, `detections` out, one for one and in the order of each camera's frames.
///
/// Batches are computed by threads of their own; the event loop gives them out and publishes what comes back.
pub struct InferNode<E> {
    workers: Workers,
    in_work: InOrder<Answer>,
    /// When a batch last came back, or was submitted with nothing in work.
    progress: Instant,
    timeout: Duration,
    batch_wait: Option<Duration>,
    of_model: Thresholds,
    metrics: Metrics,
    /// The user knows that the boxes are most likely wrong.
    doubted: bool,
    engine: PhantomData<fn() -> E>,
}

impl<E: Engine> Node for InferNode<E> {
    const NAME: &'static str = E::NAME;
    const SUMMARY: &'static str = E::SUMMARY;
    const SHARES_PROCESS: bool = true;
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

    fn check(settings: &E::Settings, findings: &mut Findings<'_>) {
        E::check(settings, findings);
        if let Some((setting, why)) = foreseen::<E>(settings) {
            findings.refuse(setting, why);
        }
    }

    fn open(settings: E::Settings, cx: &Context) -> Result<Self, NodeError> {
        let settings = E::in_flow(settings, cx.flow());
        let (copies, threads) = E::share(&settings, cx.flow()).map_err(NodeError::fatal)?;
        let common = E::common(&settings);
        let (batch_wait, timeout) = (batch_wait(common), Duration::from_millis(common.batch_timeout_ms.into()));
        let (workers, opened) = Workers::open::<E>(settings, copies, threads, &cx.waker()).map_err(NodeError::fatal)?;
        let about = opened.model.about.iter().map(|about| format!("{}: {about}", opened.model.name));
        about.chain(opened.notes).for_each(|text| cx.note(text));
        // what the engine's times are read with
        cx.metrics().gauge("engine_workers", "", workers.copies() as i64);
        cx.metrics().gauge("engine_batch_most", "", workers.batch() as i64);
        Ok(Self {
            workers,
            in_work: InOrder::default(),
            progress: Instant::now(),
            timeout,
            batch_wait,
            of_model: opened.model.thresholds,
            metrics: cx.metrics().clone(),
            doubted: false,
            engine: PhantomData,
        })
    }

    fn change(&mut self, settings: E::Settings) -> Result<(), String> {
        let common = E::common(&settings);
        self.workers.set_thresholds(common.thresholds(self.of_model).map_err(|e| e.to_string())?);
        self.batch_wait = batch_wait(common);
        Ok(())
    }

    fn batch(&self) -> usize {
        self.workers.batch()
    }

    fn batch_wait(&self) -> Option<Duration> {
        self.batch_wait
    }

    /// While something is in work, only a full batch is worth being in work beside it: the frames of one that is not would
    /// wait for the engine, and could as well wait for others.
    fn accepts(&self, waiting: usize) -> bool {
        self.workers.have_room() && (self.in_work() == 0 || waiting >= self.batch())
    }

    fn in_work(&self) -> usize {
        self.in_work.len()
    }

    fn on_input(&mut self, port: &'static str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        self.on_batch(vec![(port, input)], out).into_iter().collect()
    }

    fn on_batch(&mut self, batch: Vec<(&'static str, Input)>, _: &mut Outputs) -> Vec<Result<(), NodeError>> {
        let leases = batch.into_iter().filter_map(|(_, input)| match input {
            Input::Frame(lease) => Some(lease),
            Input::Detections(_) => None, // the harness refuses and counts what PORTS does not name
        });
        let leases: Vec<_> = leases.collect();
        if self.in_work() == 0 {
            self.progress = Instant::now();
        }
        let frames: Vec<Frame> =
            leases.iter().map(|lease| Frame { source: lease.item().source.clone(), seq: lease.item().seq }).collect();
        let id = self.workers.submit(leases);
        self.in_work.accept(id, frames.into_iter());
        Vec::new()
    }

    fn complete(&mut self, out: &mut Outputs) -> Vec<(u64, Result<(), NodeError>)> {
        let mut fault = None;
        while let Some(event) = self.workers.next() {
            match event {
                Event::Answered(_, batch, answers, engine) => {
                    self.progress = Instant::now();
                    engine.into_iter().for_each(|time| self.count_engine(time));
                    self.in_work.answer(batch, answers);
                }
                Event::Panicked => {
                    fault = Some(("inference", "a worker has panicked; its message is above".to_owned()))
                }
            }
        }
        let mut results = Vec::new();
        for (frame, answer) in self.in_work.take() {
            let published = self.publish(&frame.source, answer, out, &mut fault);
            if published.as_ref().is_err_and(NodeError::is_stopped) {
                self.metrics.count("unfinished", &frame.source, 1);
            }
            results.push((frame.seq, published));
        }
        if fault.is_none() && self.in_work() > 0 && self.progress.elapsed() >= self.timeout {
            let (frames, waited) = (counted(self.in_work(), "frame", "frames"), self.timeout.as_secs_f32());
            let text = format!(
                "the engine has not answered for {waited} s, with {frames} in work. Either it hangs (`millrace doctor` \
                 shows driver and GPU), or BATCH_TIMEOUT_MS is too short for the model on this machine"
            );
            fault = Some(("unanswered", text));
        }
        if let Some((cause, text)) = fault {
            let lost = self.in_work.give_up();
            results.extend(lost.into_iter().map(|f| (f.seq, Err(NodeError::frame(cause, &f.source, &text)))));
            results.push((0, Err(NodeError::fatal(text))));
        }
        results
    }
}

impl<E> Drop for InferNode<E> {
    /// What was not done in time is counted; the threads are given time to end, so that the engine is not in use when the
    /// process ends.
    fn drop(&mut self) {
        for frame in self.in_work.give_up() {
            self.metrics.count("unfinished", &frame.source, 1);
        }
        if !self.workers.close(PATIENCE) {
            tracing::warn!("the engine still computes; it ends with the process");
        }
    }
}

/// `None` where nothing is set: as long as pays.
fn batch_wait(common: &DetectorSettings) -> Option<Duration> {
    common.batch_wait_ms.map(|ms| Duration::from_millis(ms.into()))
}

/// A cause, as losses are counted by, and its text.
type Fault = (&'static str, String);

impl<E: Engine> InferNode<E> {
    /// Counts a batch by what the engine itself needed for it.
    fn count_engine(&self, EngineTime { ns, frames }: EngineTime) {
        for (name, n) in [("engine_batches", 1), ("engine_frames", frames), ("engine_ns", ns)] {
            self.metrics.count(name, "", n);
        }
    }

    /// Tells the user that the boxes are most likely wrong, once for all cameras and workers.
    fn doubt(&mut self, text: impl FnOnce() -> String) {
        if !std::mem::replace(&mut self.doubted, true) {
            self.metrics.note(text());
        }
    }

    /// Publishes what was found in a frame. A fault that later frames have too is put into `fault`.
    fn publish(
        &mut self,
        source: &str,
        answer: Answer,
        out: &mut Outputs,
        fault: &mut Option<Fault>,
    ) -> Result<(), NodeError> {
        let Answer { timing, found, took_ns, busy_ns } = answer;
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                if matches!(e, DetectError::Head { .. }) {
                    self.doubt(|| e.to_string());
                }
                if !e.is_of_one_frame() {
                    fault.get_or_insert_with(|| ("inference", e.to_string()));
                }
                return Err(NodeError::frame("inference", source, e));
            }
        };
        let Found { detections, not_finite, over_limit, impossible, doubt, .. } = found;
        if let Some(text) = doubt {
            self.doubt(|| text);
        }
        for (name, time_ns) in [("inference", took_ns), ("on_input", took_ns), ("busy", busy_ns)] {
            self.metrics.observe_ns(name, source, time_ns);
        }
        let counts = [
            ("candidates_not_finite", not_finite),
            ("candidates_over_limit", over_limit),
            ("candidates_impossible", impossible),
        ];
        for (name, n) in counts {
            if n > 0 {
                self.metrics.count(name, source, n);
            }
        }
        out.detections("detections", &detections, timing)
    }
}
