//! The edge: what another process wrote about a slot is checked here, once, before a byte of the slot is read.

use super::frame_lease::{FrameBytes, FrameLease, Input};
use crate::metrics::Metrics;
use crate::node::PortIn;
use crate::settings::Exchange;
use millrace_frame::wire::compact;
use millrace_frame::{Device, Item, Payload, PayloadKind};
use std::sync::Arc;

/// Reads a frame's description. A frame whose description cannot be read is lost, counted by cause.
pub(super) fn described(
    spec: &PortIn,
    source: &str,
    lease: &millrace_pool::SlotLease,
    metrics: &Metrics,
) -> Option<Item> {
    compact::item_from_bytes(lease.item())
        .map_err(|e| refuse(spec, source, metrics, "bad_description", &e.to_string()))
        .ok()
}

fn refuse(spec: &PortIn, source: &str, metrics: &Metrics, cause: &'static str, why: &str) {
    metrics.drop_port(cause, spec.name, source, 1);
    metrics.warn_sometimes(cause, source, || format!("input '{}', camera '{source}': {why}", spec.name));
}

/// Checks a description against its slot, and makes an input of it. A frame that is refused is lost, counted by cause.
pub(super) fn accept(
    spec: &PortIn,
    lease: millrace_pool::SlotLease,
    item: Item,
    metrics: &Metrics,
    exchange: Exchange,
) -> Option<Input> {
    let source = item.source.clone();
    let refuse = |cause: &'static str, why: String| {
        refuse(spec, &source, metrics, cause, &why);
        None
    };
    let kind = item.payload.kind();
    if !spec.accepts.contains(&kind) {
        return refuse("wrong_kind", format!("the port accepts {:?}, and a {kind:?} came", spec.accepts));
    }
    if let Err(e) = item.payload.validate(lease.slot_bytes()) {
        return refuse("bad_description", format!("frame {}: {e}", item.seq));
    }
    if lease.gpu().is_some() != matches!(item.device, Device::Cuda(_)) {
        return refuse("bad_description", format!("frame {}: its device is not the one that its slot is on", item.seq));
    }
    if let (Some(gpu), false) = (lease.gpu(), spec.on_gpu && kind != PayloadKind::Detections) {
        let why = format!(
            "its frames are on the GPU {}, and this node reads host memory: give their producer MEMORY=host, or put a node here that works on a GPU",
            gpu.name()
        );
        return refuse("on_gpu", why);
    }
    metrics.count_port("in", spec.name, &source, 1);
    metrics.count_port("bytes_in", spec.name, &source, item.payload.bytes());
    metrics.observe_ns("age", &source, item.timing.age_ns());
    if kind == PayloadKind::Detections {
        // a node that reads frames or packets as well has them among its ages, and these are younger
        metrics.observe_ns("result_age", &source, item.timing.age_ns());
    }
    let Payload::Detections { len_bytes } = item.payload else {
        let bytes = if exchange == Exchange::Copy && lease.gpu().is_none() {
            metrics.copied(&source, item.payload.bytes());
            FrameBytes::Copied(Arc::new(lease.bytes()[..item.payload.end_bytes() as usize].to_vec()))
        } else {
            FrameBytes::InSlot(lease)
        };
        return Some(Input::Frame(FrameLease { item: Arc::new(item), bytes }));
    };
    // a copy: a producer that was taken over may write while this is read
    let record = lease.bytes()[..len_bytes as usize].to_vec();
    match compact::detections_from_bytes(&record) {
        Ok(found) => Some(Input::Detections(found)),
        Err(e) => refuse("bad_description", format!("frame {}: {e}", item.seq)),
    }
}
