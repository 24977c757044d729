//! The node: cameras in, frames and encoded packets out.

use crate::backend::{Backend, Frame, PictureInfo};
use crate::camera::{Camera, DecoderContext};
use crate::config::{Config, Origin};
use crate::queue::{Event, Policy};
use crate::reach;
use crate::settings::{Members, Unclear};
use crate::watch::{Found, Refused, Watch};
use millrace_frame::{Item, PacketDesc, Payload, PayloadKind};
use millrace_ingest::{AccessUnit, PacedSource};
use millrace_node::{Context, Findings, Flow, Input, Node, NodeError, Outputs, PortOut, Ports, Progress, Sandbox};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The event loop is woken by what comes; this is for what nobody wakes it for.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// How often the time of a camera's last frame is reported again.
const REFRESH: Duration = Duration::from_secs(1);
/// A thread that has not ended by then is left to the process's end. `millrace run` has dora kill what has not ended 1.8 s
/// after an interrupt.
const LONGEST_END: Duration = Duration::from_secs(1);

/// A node that decodes cameras, by any kind of decoder.
pub struct Decode<B: Backend> {
    context: DecoderContext<B>,
    cameras: Vec<Camera<B>>,
    /// Whom it serves is SOURCE's one file, which was opened, and whose faults are the node's.
    one_file: Option<Option<PacedSource>>,
    watch: Option<Watch>,
    /// Why it has no cameras yet: the file had faults when the node was started again.
    waits: Option<String>,
    /// What is to be taken over at the next look.
    pending: Option<Vec<Config>>,
    threads: Vec<JoinHandle<()>>,
    started: bool,
    /// The camera whose turn it is.
    turn: usize,
    looked: Instant,
    refreshed: Instant,
}

impl<B: Backend> Node for Decode<B> {
    const NAME: &'static str = B::NAME;
    const SUMMARY: &'static str = B::SUMMARY;
    const SHARES_PROCESS: bool = true;
    const PORTS: Ports = Ports {
        inputs: &[],
        outputs: &[
            PortOut { name: "frame", carries: PayloadKind::Image, doc: B::FRAME_DOC },
            PortOut { name: "packet", carries: PayloadKind::Packet, doc: B::PACKET_DOC },
        ],
    };
    type Settings = B::Settings;

    fn check(settings: &B::Settings, findings: &mut Findings<'_>) {
        let settings = settings.as_ref();
        if let Err(Unclear { setting, why }) = settings.members(findings.node()) {
            findings.refuse(setting, why);
        }
        let with = if B::OPENS_DEVICES {
            Some(format!("on {}, whose sandbox leaves files and ports in reach", B::NAME))
        } else {
            (!findings.is_confined()).then(|| "where SANDBOX is off".to_owned())
        };
        with.into_iter().for_each(|with| findings.no_effect(&["SANDBOX_READ", "SANDBOX_PORTS"], with));
        reach::check(settings, findings);
    }

    fn sandbox(settings: &B::Settings, node: &str) -> Sandbox {
        if B::OPENS_DEVICES { Sandbox::Calls } else { Sandbox::Files(reach::needs(settings.as_ref(), node)) }
    }

    fn open(settings: B::Settings, cx: &Context) -> Result<Self, NodeError> {
        let of_cameras = settings.as_ref().clone();
        let members = of_cameras.members(cx.node_id()).map_err(NodeError::fatal)?;
        let backend = Arc::new(B::open(&settings, cx)?);
        // before a byte of any source is read
        cx.seal()?;
        let context = DecoderContext {
            backend,
            settings: of_cameras,
            cx: cx.clone(),
            policy: Arc::<Policy>::default(),
            packets: false,
        };
        let (mut one_file, mut watch, mut waits) = (None, None, None);
        let configs = match members {
            Members::One(config) => {
                if let Origin::File(_) = config.origin {
                    one_file = Some(Some(config.open(&context.settings.source_settings).map_err(NodeError::fatal)?));
                }
                vec![config]
            }
            Members::Several(configs) => configs,
            Members::File { path, choice } => {
                let started = Watch::start(&path, &choice, cx.waker(), cx.stopping());
                let (started, found) = started.map_err(NodeError::fatal)?;
                watch = Some(started);
                match found {
                    Ok(configs) => configs,
                    // the graph was started with a file that was right, and goes on when it is again
                    Err(refused) if cx.restarts() > 0 && cx.flow() == Flow::Live => {
                        waits = Some(waits_for(&refused));
                        count_refusal(cx, &refused);
                        cx.note(format!("the decoder, which was started again, {}", waits_at_length(&refused)));
                        Vec::new()
                    }
                    Err(Refused { report, .. }) => return Err(NodeError::fatal(report.trim_end())),
                }
            }
        };
        let cameras: Result<Vec<_>, _> = configs.into_iter().map(|config| Camera::new(config, &context)).collect();
        Ok(Self {
            context,
            cameras: cameras?,
            one_file,
            watch,
            waits,
            pending: None,
            threads: Vec::new(),
            started: false,
            turn: 0,
            looked: Instant::now(),
            refreshed: Instant::now(),
        })
    }

    fn change(&mut self, settings: B::Settings) -> Result<(), String> {
        let (before, now) = (&self.context.settings, settings.as_ref());
        if before.cameras != now.cameras {
            match now.members(self.context.cx.node_id()).map_err(|e| e.why)? {
                Members::File { path, choice } => {
                    let cx = &self.context.cx;
                    let (watch, found) = Watch::start(&path, &choice, cx.waker(), cx.stopping())?;
                    self.pending = Some(found.map_err(|refused| refused.report)?);
                    self.watch = Some(watch);
                }
                _ => return Err("CAMERAS cannot be taken away while the node runs; name another file".to_owned()),
            }
        }
        self.context.backend.change(&settings, &self.context.cx)?;
        self.context.settings = settings.as_ref().clone();
        Ok(())
    }

    fn on_input(&mut self, port: &str, _: Input, _: &mut Outputs) -> Result<(), NodeError> {
        Err(NodeError::fatal(format!("'{port}' is no input: this node is a source")))
    }

    fn produce(&mut self, out: &mut Outputs) -> Result<Progress, NodeError> {
        self.context.policy.set_lossless(out.flow() == Flow::Lossless);
        if !self.started {
            self.start(out)?;
        }
        if self.looked.elapsed() >= LOOK_AROUND {
            self.look_around(out)?;
        }
        let mut progress = None;
        // the harness looks around in between, which costs the same for one event and for many
        for _ in 0..self.cameras.len() {
            let Some((at, event)) = self.next_event() else { break };
            self.event(at, event, out)?;
            progress = Some(Progress::Busy);
        }
        progress.map_or_else(|| self.nothing_to_do(out), Ok)
    }
}

impl<B: Backend> Decode<B> {
    /// Starts the cameras' threads, once the consumers are there.
    fn start(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        self.started = true;
        if let Some(what) = &self.waits {
            out.waits(what);
        }
        self.context.packets = out.connected("packet");
        let mut opened = self.one_file.as_mut().and_then(Option::take);
        for at in 0..self.cameras.len() {
            self.start_camera(at, opened.take(), out)?;
        }
        Ok(())
    }

    fn start_camera(&mut self, at: usize, opened: Option<PacedSource>, out: &mut Outputs) -> Result<(), NodeError> {
        let camera = &mut self.cameras[at];
        let id = camera.config.id.clone();
        let again = camera.is_known();
        let threads = camera.start(opened, &self.context);
        if again {
            camera.was_changed();
        }
        self.threads.extend(threads.map_err(|e| {
            NodeError::fatal(format!("no thread for camera '{id}': {e}; raise the limit on processes and threads"))
        })?);
        let from = self.cameras[at].config.redacted_source();
        tracing::info!(source = from, camera = id, enabled = self.cameras[at].config.enabled, "starts");
        if let Some(status) = self.cameras[at].status(false) {
            out.camera(status);
        }
        Ok(())
    }

    fn event(&mut self, at: usize, event: Event<B::Surface>, out: &mut Outputs) -> Result<(), NodeError> {
        match event {
            Event::Packet(unit) => {
                return self.packet(at, &unit, out).or_else(|fault| self.no_packet(at, fault));
            }
            Event::Frame { picture_info, surface } => {
                self.frame(at, &picture_info, surface, out)?;
                if !self.cameras[at].has_news() {
                    return Ok(());
                }
            }
            Event::State(state) => self.cameras[at].source_is(state),
            Event::End { failed } => self.end(at, failed)?,
        }
        if let Some(status) = self.cameras[at].status(false) {
            out.camera(status);
        }
        Ok(())
    }

    /// The next event of the camera whose turn it is, or of the next one that has any.
    fn next_event(&mut self) -> Option<(usize, Event<B::Surface>)> {
        let count = self.cameras.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(event) = self.cameras[at].take() {
                self.turn = at + 1;
                return Some((at, event));
            }
        }
        None
    }

    /// Looks at what wakes nobody: the cameras file, decoders that hang, threads that have ended.
    fn look_around(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        self.looked = Instant::now();
        if let Some(found) = self.watch.as_ref().and_then(Watch::changed) {
            self.file_changed(found, out);
        }
        if let Some(configs) = self.pending.take() {
            self.apply(configs, out)?;
        }
        let refresh = self.refreshed.elapsed() >= REFRESH;
        if refresh {
            self.refreshed = Instant::now();
        }
        for camera in &mut self.cameras {
            if let Some(status) = camera.status(refresh) {
                out.camera(status);
            }
        }
        self.threads.retain(|thread| !thread.is_finished());
        Ok(())
    }

    fn file_changed(&mut self, found: Found, out: &mut Outputs) {
        let metrics = self.context.cx.metrics();
        match found {
            Ok(configs) => {
                metrics.gauge("cameras_file_faults", "", 0);
                metrics.count("cameras_file_applied", "", 1);
                self.pending = Some(configs);
            }
            Err(refused) => {
                count_refusal(&self.context.cx, &refused);
                let path = self.watch.as_ref().map(Watch::path).unwrap_or_default();
                let what = match &mut self.waits {
                    Some(waits) => {
                        *waits = waits_for(&refused);
                        out.waits(waits);
                        waits_at_length(&refused)
                    }
                    None => format!("the cameras stay as they were:\n{}", refused.report.trim_end()),
                };
                // the terminal shows it, too
                self.context.cx.note(format!("{path} has changed and is refused; {what}"));
            }
        }
    }

    /// Serves these cameras from now on. Those that are in both sets go on undisturbed.
    fn apply(&mut self, configs: Vec<Config>, out: &mut Outputs) -> Result<(), NodeError> {
        if self.waits.take().is_some() {
            out.waits("");
        }
        let mut at = 0;
        while at < self.cameras.len() {
            let id = &self.cameras[at].config.id;
            if configs.iter().any(|config| config.id == *id) {
                at += 1;
                continue;
            }
            let mut camera = self.cameras.remove(at);
            camera.stop();
            tracing::info!(camera = camera.config.id, "removed");
            out.remove_camera(&camera.config.id);
        }
        for config in configs {
            match self.cameras.iter().position(|camera| camera.config.id == config.id) {
                Some(at) => {
                    if self.cameras[at].config != config && self.cameras[at].configure(config) {
                        self.cameras[at].stop();
                        self.start_camera(at, None, out)?;
                    }
                }
                None => {
                    self.cameras.push(Camera::new(config, &self.context)?);
                    self.start_camera(self.cameras.len() - 1, None, out)?;
                }
            }
        }
        Ok(())
    }

    fn nothing_to_do(&self, out: &Outputs) -> Result<Progress, NodeError> {
        // a cameras file may name others later; a batch job over one ends with its files
        let may_change = self.watch.is_some() && out.flow() == Flow::Live;
        if may_change || self.pending.is_some() || !self.cameras.iter().all(|camera| camera.ended) {
            return Ok(Progress::Idle(LOOK_AROUND));
        }
        if self.cameras.iter().any(|camera| camera.failed.is_none()) || self.cameras.is_empty() {
            return Ok(Progress::End);
        }
        let reason =
            |camera: &Camera<B>| camera.failed.as_ref().map(|why| format!("camera '{}': {why}", camera.config.id));
        Err(NodeError::fatal(self.cameras.iter().filter_map(reason).collect::<Vec<_>>().join("; ")))
    }

    fn end(&mut self, at: usize, failed: Option<String>) -> Result<(), NodeError> {
        if let (Some(_), Some(why)) = (&self.one_file, &failed) {
            return Err(NodeError::fatal(why));
        }
        self.cameras[at].end(failed);
        Ok(())
    }

    fn frame(
        &mut self,
        at: usize,
        picture_info: &PictureInfo,
        surface: B::Surface,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let camera = &mut self.cameras[at];
        let limit = self.context.settings.source_settings.frames.unwrap_or(u64::MAX);
        let seq = camera.frames;
        camera.frames += 1;
        camera.shows(picture_info.timing.capture_ns);
        let source_settings = camera.config.source_settings(&self.context.settings.source_settings);
        let frame = Frame { camera: &camera.config.id, seq, picture_info, source_settings: &source_settings };
        let published = match out.connected("frame") {
            true => self.context.backend.publish(camera.workspace(), surface, &frame, out),
            false => {
                self.context.cx.metrics().count("frame_unread", frame.camera, 1);
                Ok(())
            }
        };
        if published.as_ref().is_err_and(NodeError::is_stopped) {
            camera.counters().stopped(1);
        }
        if camera.frames >= limit {
            camera.end(None);
        }
        published
    }

    /// A packet that is lost is no picture that is lost.
    fn no_packet(&self, at: usize, fault: NodeError) -> Result<(), NodeError> {
        let counters = self.cameras[at].counters();
        match fault.cause() {
            Some(cause) => {
                counters.packets(cause, 1, &fault.to_string());
                Ok(())
            }
            None => {
                counters.stopped_packets(u64::from(fault.is_stopped()));
                Err(fault)
            }
        }
    }

    fn packet(&mut self, at: usize, unit: &AccessUnit, out: &mut Outputs) -> Result<(), NodeError> {
        let camera = &mut self.cameras[at];
        let (seq, id) = (camera.packets, camera.config.id.as_str());
        camera.packets += 1;
        let Ok(len_bytes) = u32::try_from(unit.data.len()) else {
            return Err(NodeError::frame("oversized_packet", id, "an encoded picture of 4 GiB or more"));
        };
        let Some(mut slot) = out.slot("packet", id, u64::from(len_bytes))? else { return Ok(()) };
        slot.bytes_mut()[..unit.data.len()].copy_from_slice(&unit.data);
        let info = &unit.info;
        let (codec, key, orientation) = (info.codec, unit.key, info.orientation);
        let desc = PacketDesc { codec, key, len_bytes, display: info.display_size(), orientation };
        out.publish(slot, &Item::on_host(id, seq, unit.timing, Payload::Packet(desc)))
    }
}

fn count_refusal(cx: &Context, refused: &Refused) {
    cx.metrics().gauge("cameras_file_faults", "", refused.faults as i64);
    cx.metrics().count("cameras_file_refused", "", 1);
}

/// In one line, as the reason of a camera's state.
fn waits_for(refused: &Refused) -> String {
    let first = refused.report.lines().next().unwrap_or_default();
    format!("was started again and waits until the cameras file has no faults: {first}")
}

fn waits_at_length(refused: &Refused) -> String {
    format!("waits until the cameras file has no faults:\n{}", refused.report.trim_end())
}

impl<B: Backend> Drop for Decode<B> {
    /// Ends the cameras' threads: the driver must not be taken down under their feet.
    fn drop(&mut self) {
        self.watch = None;
        self.cameras.iter_mut().for_each(Camera::stop);
        let until = Instant::now() + LONGEST_END;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
