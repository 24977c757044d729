//! The node: hands what arrives to the hub, which never waits.

use crate::config::Settings;
use crate::hub::{Delivered, Hub, LoopAge, Refused};
use crate::pictures::Pictures;
use crate::queue::View;
use crate::server::{Server, parse_bind};
use millrace_frame::{CameraStatus, Detections, PacketCodec, Payload, PayloadKind};
use millrace_node::{Context, Findings, FrameLease, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports};
use std::sync::Arc;

/// `ws-publisher`.
pub(crate) struct WsPublisher {
    hub: Arc<Hub>,
    server: Server,
    metrics: Metrics,
    pictures: Pictures,
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

    fn check(settings: &Settings, findings: &mut Findings<'_>) {
        match parse_bind(&settings.bind) {
            Ok(ip) => findings.listens("PORT", (ip, settings.port).into()),
            Err(why) => findings.refuse("BIND", why),
        }
    }

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let ip = parse_bind(&settings.bind).map_err(NodeError::fatal)?;
        let max_clients = settings.max_clients as usize;
        let metrics = cx.metrics().clone();
        let loop_age = LoopAge(Box::new(move || metrics.loop_age()));
        let hub = Hub::new(settings.title.clone(), max_clients, Default::default(), loop_age);
        let server =
            Server::start(ip, settings.port, &settings.origins, max_clients, hub.clone()).map_err(NodeError::fatal)?;
        cx.note(server.page());
        if let Some(warning) = server.warning() {
            tracing::warn!("{warning}");
            cx.note(format!("warning: {warning}"));
        }
        let metrics = cx.metrics().clone();
        let pictures = Pictures::start(&settings, hub.clone(), metrics.clone())?;
        Ok(Self { hub, server, metrics, pictures })
    }

    fn change(&mut self, settings: Settings) -> Result<(), String> {
        self.pictures.change(&settings);
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

    fn packet(&mut self, lease: &FrameLease) -> Result<(), NodeError> {
        let item = lease.item();
        let Payload::Packet(packet) = &item.payload else { return Ok(()) };
        if packet.codec != PacketCodec::H264 {
            // browsers do not decode it everywhere: 'frame' serves these cameras, as JPEG
            self.metrics.count("packets_not_h264", &item.source, 1);
            return Ok(());
        }
        let view = View { size: packet.display, orientation: packet.orientation };
        let data = lease.bytes().get(..packet.len_bytes as usize).unwrap_or_default();
        let delivered = self
            .hub
            .packet(&item.source, item.timing.pts_ns, item.timing.capture_ns, packet.key, view, data)
            .map_err(|e| refused(&e, &item.source))?;
        self.count(&item.source, "client_packets_lost", delivered);
        Ok(())
    }

    fn frame(&mut self, lease: FrameLease) -> Result<(), NodeError> {
        let item = lease.item();
        self.hub.picture(&item.source, item.timing.capture_ns).map_err(|e| refused(&e, &item.source))?;
        self.pictures.offer(lease, &self.hub);
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
