//! The node: frames in, a JPEG file of each chosen one.

use crate::config::Settings;
use crate::jpeg;
use millrace_frame::{Payload, PayloadKind};
use millrace_node::{Context, Findings, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports};

/// `frame-picture`.
pub(crate) struct FramePicture {
    settings: Settings,
    metrics: Metrics,
}

impl Node for FramePicture {
    const NAME: &'static str = "frame-picture";
    const SUMMARY: &'static str = "writes chosen frames as JPEG files";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: true,
            order: Order::Every,
            required: true,
            doc: "images of any format, in host memory or on a GPU",
        }],
        outputs: &[],
    };
    type Settings = Settings;

    fn check(settings: &Settings, findings: &mut Findings<'_>) {
        if settings.frames.is_empty() {
            findings.warn("FRAMES", "FRAMES names no frame, so no picture is written");
        }
    }

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        if !settings.folder.is_dir() {
            let folder = settings.folder.display();
            return Err(NodeError::fatal(format!("FOLDER: {folder} is no folder; make it first, or choose another")));
        }
        Ok(Self { settings, metrics: cx.metrics().clone() })
    }

    fn on_input(&mut self, port: &'static str, input: Input, _: &mut Outputs) -> Result<(), NodeError> {
        let Input::Frame(lease) = input else {
            return Err(NodeError::fatal(format!("'{port}' carried detections; an image is expected")));
        };
        let item = lease.item();
        if !self.settings.frames.contains(&item.seq) {
            return Ok(());
        }
        let Payload::Image(image) = &item.payload else {
            let kind = item.payload.kind();
            return Err(NodeError::fatal(format!("'{port}' carried {kind:?}; an image is expected")));
        };
        let lost = |e: jpeg::JpegError| NodeError::frame("jpeg", &item.source, format!("frame {}: {e}", item.seq));
        let picture = jpeg::encode(image, &lease.on_host()?, self.settings.quality).map_err(lost)?;
        // a camera's id may hold what a file's name may not
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let camera: String = item.source.chars().map(safe).collect();
        let path = self.settings.folder.join(format!("{camera}-{}.jpg", item.seq));
        std::fs::write(&path, picture)
            .map_err(|e| NodeError::fatal(format!("{} cannot be written: {e}", path.display())))?;
        self.metrics.count("pictures", &item.source, 1);
        Ok(())
    }
}
