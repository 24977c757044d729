//! The node: cameras in, frames on the GPU and encoded packets out.

use crate::backend::{Backend, Frame};
use crate::camera::{Camera, Event, Events, Threads};
use crate::config::Settings;
use crate::one::One;
use millrace_frame::{Item, PacketDesc, Payload, PayloadKind};
use millrace_ingest::{AccessUnit, Shown};
use millrace_node::{Context, Input, Node, NodeError, Outputs, PortOut, Ports, Progress};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Events of a camera that may wait for the loop.
const ROOM_PER_CAMERA: usize = 4;
/// The loop is woken by what comes; this is for what nobody wakes it for.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// `nvdec-nv12`, on any decoder.
pub(crate) struct NvdecNv12<B: Backend> {
    settings: Settings,
    backend: Arc<B>,
    cx: Context,
    cameras: Vec<One<B>>,
    /// Dropped before the threads are waited for: what they have to say then goes nowhere.
    events: Option<Receiver<Event<B>>>,
    events_in: Events<B>,
    threads: Option<Threads>,
}

impl<B: Backend> Node for NvdecNv12<B> {
    const NAME: &'static str = "nvdec-nv12";
    const SUMMARY: &'static str = "decodes H.264 and H.265 of many cameras to NV12 or P016, on an NVIDIA GPU";
    const PORTS: Ports = Ports {
        inputs: &[],
        outputs: &[
            PortOut {
                name: "frame",
                carries: PayloadKind::Image,
                doc: "nv12, or p016 for more than 8 bits, in the GPU's memory; what is shown of each picture, in \
                      presentation order",
            },
            PortOut {
                name: "packet",
                carries: PayloadKind::Packet,
                doc: "the encoded pictures as Annex-B in host memory, in decoding order; pts as of the frame",
            },
        ],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let sources = settings.cameras(cx.node_id()).map_err(NodeError::fatal)?;
        let backend = Arc::new(B::open(&settings, cx)?);
        let (events_in, events) = Events::new(ROOM_PER_CAMERA * sources.len(), cx.waker());
        let cameras: Result<Vec<_>, _> = sources.iter().map(|s| One::open(s, &settings, &*backend, cx)).collect();
        let node = Self {
            settings,
            backend,
            cx: cx.clone(),
            cameras: cameras?,
            events: Some(events),
            events_in,
            threads: None,
        };
        node.any_left()?;
        Ok(node)
    }

    fn change(&mut self, settings: Settings) -> Result<(), String> {
        self.cx.set_sync(settings.gpu.sync);
        Ok(())
    }

    fn on_input(&mut self, port: &str, _: Input, _: &mut Outputs) -> Result<(), NodeError> {
        Err(NodeError::fatal(format!("'{port}' is no input: this node is a source")))
    }

    fn produce(&mut self, out: &mut Outputs) -> Result<Progress, NodeError> {
        if self.threads.is_none() {
            self.start(out.connected("packet"))?;
        }
        let Some(event) = self.events.as_ref().and_then(|events| events.try_recv().ok()) else {
            let over = self.cameras.iter().all(|c| c.ended);
            return Ok(if over { Progress::End } else { Progress::Idle(LOOK_AROUND) });
        };
        match event {
            Event::Packet { camera, unit } => self.packet(camera, &unit, out)?,
            Event::Frame { camera, shown, surface } => self.frame(camera, &shown, surface, out)?,
            Event::End { camera, failed } => {
                let one = &mut self.cameras[camera];
                one.ended = true;
                if let Some(why) = failed {
                    one.fail(why);
                    self.any_left()?;
                }
            }
        }
        Ok(Progress::Busy)
    }
}

impl<B: Backend> NvdecNv12<B> {
    /// Starts the cameras' threads, once the consumers are there.
    fn start(&mut self, packets: bool) -> Result<(), NodeError> {
        let threads = self.threads.insert(Threads::default());
        for (index, one) in self.cameras.iter_mut().enumerate() {
            let Some(feed) = one.feed.take() else { continue };
            let camera = Camera {
                index,
                backend: self.backend.clone(),
                lane: one.lane.clone(),
                feed,
                packets,
                losses: one.losses.clone(),
                events: self.events_in.of(one.enough.clone()),
                stop: self.cx.stopping(),
            };
            camera.start(threads).map_err(|e| NodeError::fatal(format!("no thread for camera '{}': {e}", one.name)))?;
        }
        Ok(())
    }

    /// The node goes on while one camera does.
    fn any_left(&self) -> Result<(), NodeError> {
        if self.cameras.iter().any(|c| c.failed.is_none()) {
            return Ok(());
        }
        let all =
            self.cameras.iter().filter_map(|c| c.failed.as_ref().map(|why| format!("camera '{}': {why}", c.name)));
        Err(NodeError::fatal(all.collect::<Vec<_>>().join("; ")))
    }

    fn frame(&mut self, camera: usize, shown: &Shown, surface: B::Surface, out: &mut Outputs) -> Result<(), NodeError> {
        let one = &mut self.cameras[camera];
        let limit = self.settings.feed.frames.unwrap_or(u64::MAX);
        if one.frames >= limit {
            return Ok(()); // under way when there were enough
        }
        let frame = Frame { camera: &one.name, seq: one.frames, shown, settings: &self.settings };
        one.frames += 1;
        if one.frames == limit {
            one.ended = true;
            one.enough.store(true, Ordering::Relaxed);
        }
        if !out.connected("frame") {
            return Ok(());
        }
        self.backend.publish(&one.lane, surface, &frame, out)
    }

    fn packet(&mut self, camera: usize, unit: &AccessUnit, out: &mut Outputs) -> Result<(), NodeError> {
        let one = &mut self.cameras[camera];
        let seq = one.packets;
        one.packets += 1;
        let Ok(len_bytes) = u32::try_from(unit.data.len()) else { return Ok(()) };
        let Some(mut slot) = out.slot("packet", &one.name, u64::from(len_bytes))? else { return Ok(()) };
        slot.bytes_mut()[..unit.data.len()].copy_from_slice(&unit.data);
        let desc = PacketDesc { codec: unit.info.codec, key: unit.key, len_bytes, display: unit.info.display_size() };
        out.publish(slot, &Item::on_host(one.name.as_str(), seq, unit.timing, Payload::Packet(desc)))
    }
}

impl<B: Backend> Drop for NvdecNv12<B> {
    fn drop(&mut self) {
        self.events = None;
        if let Some(threads) = &mut self.threads {
            threads.end(&self.events_in);
        }
    }
}
