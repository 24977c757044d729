//! The node: hands what arrives to the hub, which never waits.

use crate::config::Settings;
use crate::hub::{Delivered, Hub, LoopAge, Refused};
use crate::jpeg;
use crate::server::{Server, parse_bind};
use millrace_frame::{CameraStatus, Detections, PacketCodec, Payload, PayloadKind};
use millrace_node::{Context, Input, Lease, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// `ws-publisher`.
pub(crate) struct WsPublisher {
    hub: Arc<Hub>,
    server: Server,
    metrics: Metrics,
    jpeg: SyncSender<Lease>,
    jpeg_every: Option<Duration>,
    /// The JPEG thread reads it before each picture.
    jpeg_quality: Arc<AtomicU8>,
    next_jpeg: HashMap<String, Instant>,
}

impl Node for WsPublisher {
    const NAME: &'static str = "ws-publisher";
    const SUMMARY: &'static str = "publishes detections over WebSocket, with a live page";
    const PORTS: Ports = Ports {
        inputs: &[
            PortIn {
                name: "detections",
                accepts: &[PayloadKind::Detections],
                on_gpu: false,
                order: Order::Every,
                required: true,
                doc: "what to publish",
            },
            PortIn {
                name: "packet",
                accepts: &[PayloadKind::Packet],
                on_gpu: false,
                order: Order::Every,
                required: false,
                doc: "the camera's own H.264, for the page's picture",
            },
            PortIn {
                name: "frame",
                accepts: &[PayloadKind::Image],
                on_gpu: false,
                order: Order::Newest,
                required: false,
                doc: "decoded frames, for JPEG pictures where H.264 is not to be had",
            },
        ],
        outputs: &[],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let ip = parse_bind(&settings.bind).map_err(NodeError::fatal)?;
        let max_clients = settings.max_clients as usize;
        let (jpeg_every, jpeg_quality) = (settings.jpeg_every(), Arc::new(AtomicU8::new(settings.jpeg_quality)));
        let metrics = cx.metrics().clone();
        let loop_age = LoopAge(Box::new(move || metrics.loop_age()));
        let hub = Hub::new(settings.title, max_clients, Default::default(), loop_age);
        let server =
            Server::start(ip, settings.port, &settings.origins, max_clients, hub.clone()).map_err(NodeError::fatal)?;
        cx.note(server.page());
        if let Some(warning) = server.warning() {
            tracing::warn!("{warning}");
            cx.note(format!("warning: {warning}"));
        }
        let (metrics, quality) = (cx.metrics().clone(), jpeg_quality.clone());
        let (jpeg, frames) = sync_channel(1);
        let (to, counts) = (hub.clone(), metrics.clone());
        std::thread::Builder::new()
            .name("jpeg".into())
            .spawn(move || encode_all(&frames, &to, &counts, &quality))
            .map_err(|e| NodeError::fatal(format!("cannot start the JPEG thread: {e}")))?;
        Ok(Self { hub, server, metrics, jpeg, jpeg_every, jpeg_quality, next_jpeg: HashMap::new() })
    }

    fn change(&mut self, settings: Settings) -> Result<(), String> {
        self.jpeg_every = settings.jpeg_every();
        // what is due was reckoned by the rate before
        self.next_jpeg.clear();
        self.jpeg_quality.store(settings.jpeg_quality, Ordering::Relaxed);
        Ok(())
    }

    fn on_camera(&mut self, status: &CameraStatus) {
        if let Err(error) = self.hub.camera(status) {
            self.metrics.count("cameras_without_a_place", &status.source, 1);
            tracing::debug!("{error}");
        }
    }

    fn on_input(&mut self, _port: &str, input: Input, _out: &mut Outputs) -> Result<(), NodeError> {
        match input {
            Input::Detections(found) => self.detections(&found),
            Input::Frame(lease) => match &lease.item().payload {
                Payload::Packet(_) => self.packet(&lease),
                _ => self.frame(lease),
            },
        }
    }

    fn drain(&mut self, _out: &mut Outputs) -> Result<(), NodeError> {
        self.hub.end();
        self.server.stop();
        Ok(())
    }
}

impl WsPublisher {
    fn detections(&mut self, found: &Detections) -> Result<(), NodeError> {
        let delivered = self.hub.detections(found).map_err(|e| refused(&e, &found.source))?;
        self.count(&found.source, "client_detections_lost", delivered);
        Ok(())
    }

    fn packet(&mut self, lease: &Lease) -> Result<(), NodeError> {
        let item = lease.item();
        let Payload::Packet(packet) = &item.payload else { return Ok(()) };
        if packet.codec != PacketCodec::H264 {
            // browsers do not decode it everywhere: 'frame' serves these cameras, as JPEG
            self.metrics.count("packets_not_h264", &item.source, 1);
            return Ok(());
        }
        let data = lease.bytes().get(..packet.len_bytes as usize).unwrap_or_default();
        let delivered = self
            .hub
            .packet(&item.source, item.timing.pts_ns, item.timing.capture_ns, packet.key, packet.display, data)
            .map_err(|e| refused(&e, &item.source))?;
        self.count(&item.source, "client_packets_lost", delivered);
        Ok(())
    }

    /// Hands a frame to the JPEG thread, where somebody wants it, the rate allows it and the thread is free.
    fn frame(&mut self, lease: Lease) -> Result<(), NodeError> {
        let item = lease.item();
        let source = &item.source;
        self.hub.picture(source, item.timing.capture_ns).map_err(|e| refused(&e, source))?;
        let Some(every) = self.jpeg_every else { return Ok(()) };
        let now = Instant::now();
        if !self.hub.jpeg_wanted(source) || self.next_jpeg.get(source).is_some_and(|&due| now < due) {
            return Ok(());
        }
        self.next_jpeg.insert(source.clone(), now + every);
        if let Err(TrySendError::Full(lease)) = self.jpeg.try_send(lease) {
            self.metrics.count("jpeg_busy", &lease.item().source, 1);
        }
        Ok(())
    }

    fn count(&self, source: &str, lost: &'static str, delivered: Delivered) {
        self.metrics.count("client_messages", source, delivered.clients);
        if delivered.lost > 0 {
            self.metrics.count(lost, source, delivered.lost);
        }
    }
}

fn refused(error: &Refused, source: &str) -> NodeError {
    NodeError::frame(error.cause(), source, error)
}

/// The JPEG thread: an encoder takes longer than the node's thread may be held up. Ends when the node does.
fn encode_all(frames: &Receiver<Lease>, hub: &Hub, metrics: &Metrics, quality: &AtomicU8) {
    for lease in frames {
        let item = lease.item();
        let Payload::Image(image) = &item.payload else { continue };
        let quality = quality.load(Ordering::Relaxed);
        let sent = jpeg::encode(image, lease.bytes(), quality).map_err(|e| e.to_string()).and_then(|data| {
            hub.jpeg(&item.source, item.timing.pts_ns, image.display_size(), &data).map_err(|e| e.to_string())
        });
        match sent {
            Ok(_) => metrics.count("jpegs", &item.source, 1),
            Err(error) => {
                tracing::debug!(source = item.source, error, "no JPEG of a frame");
                metrics.drop("jpeg_failed", &item.source, 1);
            }
        }
    }
}
