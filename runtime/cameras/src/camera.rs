//! A camera as the event loop sees it.

use crate::camera_run::CameraRun;
use crate::config::Config;
use crate::counters::CameraCounters;
use crate::feeding::Feeding;
use crate::mapping::ToEventLoop;
use crate::queue::{Event, Policy, Queue};
use crate::timeline::Timeline;
use crate::{Backend, CameraSettings};
use millrace_frame::{CameraState, CameraStatus, unix_ns};
use millrace_ingest::{Pace, PacedSource, SourceState};
use millrace_node::{Context, NodeError, logging_here};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A decoder that has not come back for so long is reported.
const HANGS: Duration = Duration::from_millis(2500);

pub(crate) struct Camera<B: Backend> {
    pub(crate) config: Config,
    workspace: Arc<B::Workspace>,
    counters: Arc<CameraCounters>,
    timeline: Arc<Timeline>,
    /// Its threads, where it has some.
    run: Option<Arc<CameraRun<B>>>,
    pub(crate) frames: u64,
    pub(crate) packets: u64,
    pub(crate) ended: bool,
    pub(crate) failed: Option<String>,
    /// What its source does, by its own word.
    source: SourceState,
    last_frame_ns: i64,
    reported: Option<CameraStatus>,
}

/// What all cameras of a decoder node share.
pub(crate) struct DecoderContext<B: Backend> {
    pub(crate) backend: Arc<B>,
    pub(crate) settings: CameraSettings,
    pub(crate) cx: Context,
    pub(crate) policy: Arc<Policy>,
    pub(crate) packets: bool,
}

impl<B: Backend> Camera<B> {
    pub(crate) fn new(config: Config, context: &DecoderContext<B>) -> Result<Self, NodeError> {
        let counters = Arc::new(CameraCounters::new(&config.id, context.cx.metrics()));
        let source = SourceState { state: CameraState::Connecting, last_error: String::new(), tries: 0 };
        Ok(Self {
            workspace: context.backend.workspace(&context.cx)?,
            counters,
            timeline: Arc::default(),
            run: None,
            frames: 0,
            packets: 0,
            ended: false,
            failed: None,
            source,
            last_frame_ns: 0,
            reported: None,
            config,
        })
    }

    /// Starts its threads, unless it is disabled. They end with the source, a stop, or the node.
    pub(crate) fn start(
        &mut self,
        opened: Option<PacedSource>,
        context: &DecoderContext<B>,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        (self.ended, self.failed) = (!self.config.enabled, None);
        let (state, last_error) = match self.config.enabled {
            true => (CameraState::Connecting, ""),
            false => (CameraState::Ended, "disabled"),
        };
        self.source = SourceState { state, last_error: last_error.to_owned(), tries: 0 };
        if !self.config.enabled {
            return Ok(Vec::new());
        }
        let queue = Queue::new(B::MAPPED, context.policy.clone(), context.cx.waker());
        let run = Arc::new(CameraRun::new(
            self.config.clone(),
            context.settings.clone(),
            context.backend.clone(),
            self.workspace.clone(),
            queue,
            (self.counters.clone(), self.timeline.clone()),
            context.packets,
            context.cx.stopping(),
        ));
        // reading a file as fast as the graph goes, nobody has to be kept from waiting for the event loop
        let as_fast = !self.config.is_url()
            && context.settings.source_settings.pace == Pace::Asfast
            && context.policy.is_lossless();
        let (to_loop, mapping) = ToEventLoop::new(&run, B::DECODES_IN_PUSH && as_fast);
        let feeding = Feeding::new(run.clone(), opened, to_loop);
        let named = |what: &str| std::thread::Builder::new().name(format!("{what} {}", self.config.id));
        self.run = Some(run);
        let mut threads = Vec::new();
        if let Some(mapping) = mapping {
            threads.push(named("map").spawn(logging_here(mapping))?);
        }
        threads.push(named("feed").spawn(logging_here(move || feeding.run()))?);
        Ok(threads)
    }

    /// What follows is no outage: the camera is opened again because its entry was changed.
    pub(crate) fn was_changed(&mut self) {
        if self.config.enabled {
            self.source.last_error = CameraStatus::changed().to_owned();
        }
    }

    /// Ends its threads; they are not waited for.
    pub(crate) fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            run.close();
        }
    }

    /// Takes over another configuration of the same camera. True where its source has to be opened again.
    pub(crate) fn configure(&mut self, config: Config) -> bool {
        let again = self.config.reopens(&config) || self.config.enabled != config.enabled;
        self.config = config;
        if let Some(run) = self.run.as_ref().filter(|_| !again) {
            run.set_target_fps(self.config.target_fps);
        }
        again
    }

    /// Its state was reported.
    pub(crate) fn is_known(&self) -> bool {
        self.reported.is_some()
    }

    pub(crate) fn counters(&self) -> &CameraCounters {
        &self.counters
    }

    pub(crate) fn workspace(&self) -> &Arc<B::Workspace> {
        &self.workspace
    }

    pub(crate) fn take(&self) -> Option<Event<B::Surface>> {
        self.run.as_ref().and_then(|run| run.queue.take())
    }

    /// Its source says what it does.
    pub(crate) fn source_is(&mut self, source: SourceState) {
        let begins = source.state == CameraState::Connecting && source.last_error.is_empty();
        if begins && self.source.state == CameraState::Connecting {
            self.source.tries = source.tries; // why it connects is known
        } else {
            self.source = source;
        }
    }

    /// A frame comes out of it.
    pub(crate) fn shows(&mut self, captured_ns: i64) {
        self.last_frame_ns = captured_ns;
        // a camera on the network says itself what it does: held pictures come out after a connection is lost
        if !self.config.is_url() && self.source.state != CameraState::Live {
            self.source = SourceState { state: CameraState::Live, last_error: String::new(), tries: 0 };
        }
    }

    /// It does something else than was reported last.
    pub(crate) fn has_news(&self) -> bool {
        self.reported.as_ref().is_none_or(|reported| reported.state != self.source.state)
    }

    /// It has ended for good, or has failed for good.
    pub(crate) fn end(&mut self, failed: Option<String>) {
        self.stop();
        self.ended = true;
        let (state, last_error) = match &failed {
            None => (CameraState::Ended, self.source.last_error.clone()),
            Some(why) => {
                self.counters.metrics.count_damage("camera_failed", &self.config.id, 1, why);
                (CameraState::Refused, why.clone())
            }
        };
        self.source = SourceState { state, last_error, tries: self.source.tries };
        self.failed = failed;
    }

    /// Its state, where that is another than the one that was given before; with `refresh`, also where frames have come
    /// since.
    pub(crate) fn status(&mut self, refresh: bool) -> Option<CameraStatus> {
        let mut status = CameraStatus::new(self.config.id.as_str());
        let SourceState { state, last_error, tries } = self.source.clone();
        (status.state, status.last_error, status.tries) = (state, last_error, tries);
        status.weight = self.config.weight;
        status.last_frame_ns = self.last_frame_ns;
        if let Some(hangs) = self.hangs() {
            status.state = CameraState::Stalled;
            status.last_error = hangs;
        }
        let same = |before: &CameraStatus| {
            (before.state, before.tries, before.weight) == (status.state, status.tries, status.weight)
                && before.last_error == status.last_error
                && !(refresh && before.last_frame_ns != status.last_frame_ns)
        };
        if self.reported.as_ref().is_some_and(same) {
            return None;
        }
        let since = self.reported.as_ref().filter(|before| before.state == status.state);
        status.since_ns = since.map_or_else(unix_ns, |before| before.since_ns);
        self.reported = Some(status.clone());
        Some(status)
    }

    fn hangs(&self) -> Option<String> {
        let run = self.run.as_ref()?;
        let longest = run.decoding.elapsed().max(run.mapping.elapsed());
        (longest >= HANGS)
            .then(|| format!("the decoder has not come back from a picture for {} s", HANGS.as_secs_f64()))
    }
}
