//! What the pools of a graph need: an estimate, and what cannot work.

use super::cameras::{Reach, producer};
use super::{CheckedNode, Effective, From, place};
use crate::describe::Description;
use crate::fault::{Fault, Report};
use crate::model::{Graph, Node};
use std::fmt::Write as _;

/// The pools of one output port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMemory {
    /// `node/output`.
    pub port: String,
    /// Cameras whose frames go through it; each has a pool of its own.
    pub cameras: u64,
    /// Slots of each pool.
    pub slots: u64,
    /// Bytes of all its pools.
    pub bytes: u64,
    /// The slots are in a GPU's memory.
    pub on_gpu: bool,
    /// What a slot holds, and what of that is assumed.
    pub holds: String,
    /// The size of a slot is assumed, at least for one camera.
    pub assumed: bool,
}

/// An estimate of the memory that the frames of a graph need: the pools of its ports. What the processes need for
/// themselves (models, decoders) is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The ports that somebody reads.
    pub ports: Vec<PortMemory>,
}

/// The slot of a packet's pool where frames of 1920x1080 are encoded, and that of detections.
const PACKET_BYTES: u64 = 256 << 10;
const DETECTIONS_BYTES: u64 = 4 << 10;
/// Slots of a pool of packets or detections, whatever SLOTS says.
const RECORD_SLOTS: u64 = 16;
/// The size of a picture where none is stated, and of a model's input.
const ASSUMED_PX: (u32, u32) = (1920, 1080);
const ASSUMED_INPUT_PX: (u64, u64) = (640, 640);

pub(super) fn estimate(graph: &Graph, nodes: &[CheckedNode], reach: &Reach, report: &mut Report) -> Memory {
    let on_gpu = on_gpu(graph, nodes);
    let mut memory = Memory::default();
    for (index, (node, checked)) in graph.nodes.iter().zip(nodes).enumerate() {
        let Some(is) = &checked.description else { continue };
        for port in &is.outputs {
            let readers = readers(graph, nodes, node, &port.name);
            if readers.is_empty() {
                continue;
            }
            let sizes: Vec<Option<(u32, u32)>> = reach[index].iter().map(|camera| camera.size_px).collect();
            // where nobody knows the cameras there is one at least
            let sizes = if sizes.is_empty() { vec![None] } else { sizes };
            let cameras = sizes.len() as u64;
            let slots = number(checked, "SLOTS").unwrap_or(8);
            let record = matches!(port.carries.as_str(), "packet" | "detections");
            if !record {
                check_leases(node, checked, &port.name, slots, cameras, &readers, report);
            }
            let slots = if record { RECORD_SLOTS } else { slots };
            let (bytes, holds, assumed) = match port.carries.as_str() {
                "image" => images(checked, &sizes),
                "tensor" => tensors(checked, cameras),
                "packet" => (PACKET_BYTES * cameras, "encoded pictures".to_owned(), true),
                _ => (DETECTIONS_BYTES * cameras, "detections".to_owned(), false),
            };
            // the node itself keeps below this
            let most_bytes = number(checked, "POOL_MIB").map_or(u64::MAX, |mib| mib.saturating_mul(1 << 20));
            memory.ports.push(PortMemory {
                port: format!("{}/{}", node.id.value, port.name),
                cameras,
                slots,
                bytes: bytes.saturating_mul(slots).min(most_bytes),
                on_gpu: on_gpu[index] && !record,
                holds,
                assumed,
            });
        }
    }
    memory
}

fn setting<'a>(node: &'a CheckedNode, key: &str) -> Option<&'a Effective> {
    node.settings.iter().find(|setting| setting.described && setting.key == key)
}

fn text<'a>(node: &'a CheckedNode, key: &str) -> Option<&'a str> {
    setting(node, key)?.value.as_deref().filter(|text| !text.is_empty())
}

fn number(node: &CheckedNode, key: &str) -> Option<u64> {
    text(node, key)?.parse().ok()
}

/// The nodes that read an output, with what is known of them.
fn readers<'a>(
    graph: &'a Graph,
    nodes: &'a [CheckedNode],
    from: &Node,
    output: &str,
) -> Vec<(&'a Node, &'a CheckedNode)> {
    let reads = |node: &Node| {
        let feeds = |upstream: &crate::dora::Upstream| matches!(upstream, crate::dora::Upstream::Output { node, output: port } if *node == from.id.value && port == output);
        node.inputs.iter().any(|input| input.upstream.as_ref().is_some_and(feeds))
    };
    graph.nodes.iter().zip(nodes).filter(|(node, _)| reads(node)).collect()
}

/// In lossless flow a consumer holds as many frames of a camera at once as are in its batch, one more is ready, and one is written.
fn check_leases(
    node: &Node,
    checked: &CheckedNode,
    output: &str,
    slots: u64,
    cameras: u64,
    readers: &[(&Node, &CheckedNode)],
    report: &mut Report,
) {
    // In live flow a batch is whatever waits, of whichever cameras; in lossless flow it would never be full.
    if text(checked, "FLOW") != Some("lossless") {
        return check_backlogs(node, output, slots, readers, report);
    }
    for (reader, is) in readers {
        // a default BATCH is an upper bound that nobody has asked for
        let given = setting(is, "BATCH").filter(|batch| batch.from != From::Default);
        let Some(batch) = given.and_then(|_| number(is, "BATCH")).filter(|batch| *batch > 1) else { continue };
        // a consumer that publishes frames itself has a batch of half its own slots at most
        let makes_frames = is
            .description
            .as_ref()
            .is_some_and(|is| is.outputs.iter().any(|port| matches!(port.carries.as_str(), "image" | "tensor")));
        let batch = if makes_frames { batch.min(number(is, "SLOTS").unwrap_or(8) / 2).max(1) } else { batch };
        let needed = batch.div_ceil(cameras) + 2;
        if slots >= needed {
            continue;
        }
        let of = if cameras == 1 { "its camera".to_owned() } else { format!("each of {cameras} cameras") };
        let message = format!(
            "'{}/{output}' has {slots} slots for {of}, and '{}' takes {batch} frames at once: {needed} are needed, with \
             one that is ready and one that is written",
            node.id.value, reader.id.value
        );
        let span =
            node.env.iter().find(|value| value.key.value == "SLOTS").map_or(node.id.span, |value| value.value.span);
        let fix = format!("SLOTS: {needed} in node '{}', or a smaller BATCH in node '{}'", checked.id, reader.id.value);
        report.push(Fault::error(span, message).fix(fix));
    }
}

/// In live flow one slot is written and one is read while the others wait.
fn check_backlogs(node: &Node, output: &str, slots: u64, readers: &[(&Node, &CheckedNode)], report: &mut Report) {
    let room = slots.saturating_sub(2).max(2);
    for (reader, is) in readers {
        let Some(backlog) = setting(is, "BACKLOG").filter(|backlog| backlog.from != From::Default) else { continue };
        let Some(frames) = number(is, "BACKLOG").filter(|frames| *frames > room) else { continue };
        let message = format!(
            "BACKLOG of node '{}' is {frames}, and the pools of '{}/{output}' have {slots} slots, room for {room} frames that \
             wait: more are lost as 'gone'",
            reader.id.value, node.id.value
        );
        let fix = format!("SLOTS: {} in node '{}', or a BACKLOG of {room}", (frames + 2).min(64), node.id.value);
        report.push(Fault::warning(reader.id.span, message).at_location(place(reader, is, backlog)).fix(fix));
    }
}

/// Which nodes publish on a GPU: those that say so, and those whose frames come from there and are made where they are.
fn on_gpu(graph: &Graph, nodes: &[CheckedNode]) -> Vec<bool> {
    let says = |node: &CheckedNode| text(node, "MEMORY").map(|memory| memory == "cuda");
    let mut on_gpu: Vec<bool> = nodes.iter().map(|node| says(node).unwrap_or(false)).collect();
    let makes = |is: &Description| is.outputs.iter().any(|port| port.carries == "tensor");
    for _ in 0..nodes.len() {
        for (index, (node, checked)) in graph.nodes.iter().zip(nodes).enumerate() {
            let follows = says(checked).is_none() && checked.description.as_ref().is_some_and(|is| makes(is));
            let from_gpu = node.inputs.iter().filter_map(|input| producer(graph, input)).any(|from| on_gpu[from]);
            on_gpu[index] |= follows && from_gpu;
        }
    }
    on_gpu
}

/// One slot for each camera, what it holds, and whether that is assumed.
fn images(node: &CheckedNode, sizes: &[Option<(u32, u32)>]) -> (u64, String, bool) {
    let bgr = text(node, "FORMAT") == Some("bgr24");
    let bytes = |size_px: &Option<(u32, u32)>| {
        let (width_px, height_px) = size_px.unwrap_or(ASSUMED_PX);
        let row_bytes = u64::from(if bgr { width_px.saturating_mul(3) } else { width_px }).next_multiple_of(256);
        let rows = if bgr { u64::from(height_px) } else { u64::from(height_px) + u64::from(height_px.div_ceil(2)) };
        row_bytes * rows
    };
    let assumed = sizes.iter().filter(|size| size.is_none()).count();
    let format = if bgr { "bgr24" } else { "nv12" };
    let holds = match assumed {
        0 => format!("{format} of the stated sizes"),
        n if n == sizes.len() => format!("{format} of 1920x1080, which is assumed"),
        n => format!("{format} of the stated sizes, 1920x1080 assumed for {n}"),
    };
    (sizes.iter().map(bytes).sum(), holds, assumed > 0)
}

fn tensors(node: &CheckedNode, cameras: u64) -> (u64, String, bool) {
    let stated = number(node, "WIDTH_PX").zip(number(node, "HEIGHT_PX"));
    let (width_px, height_px) = stated.unwrap_or(ASSUMED_INPUT_PX);
    let (dtype, element_bytes) = match text(node, "DTYPE") {
        Some("u8") => ("u8", 1),
        Some("f16") => ("f16", 2),
        _ => ("f32", 4),
    };
    let assumed = if stated.is_some() { "" } else { ", which is assumed" };
    let bytes = width_px.saturating_mul(height_px).saturating_mul(3 * element_bytes);
    (bytes.saturating_mul(cameras), format!("{dtype} of 3x{height_px}x{width_px}{assumed}"), stated.is_none())
}

impl Memory {
    /// Bytes in the machine's memory.
    pub fn host_bytes(&self) -> u64 {
        self.ports.iter().filter(|port| !port.on_gpu).map(|port| port.bytes).sum()
    }

    /// Bytes in GPU memory.
    pub fn gpu_bytes(&self) -> u64 {
        self.ports.iter().filter(|port| port.on_gpu).map(|port| port.bytes).sum()
    }

    /// One line; empty where the graph has no pool that is known.
    pub fn line(&self) -> String {
        if self.ports.is_empty() {
            return String::new();
        }
        let mut line = format!("memory: {} in shared memory", mib(self.host_bytes()));
        if self.gpu_bytes() > 0 {
            let _ = write!(line, ", {} in GPU memory", mib(self.gpu_bytes()));
        }
        line.push_str(" for frames on their way");
        if self.ports.iter().any(|port| port.assumed) {
            line.push_str("; sizes are assumed, see --explain");
        }
        line.push('\n');
        line
    }

    /// A line for each port, and the sums.
    pub fn explain(&self) -> String {
        if self.ports.is_empty() {
            return String::new();
        }
        let mut out =
            "memory of the pools: cameras x SLOTS x bytes of a slot; what the processes need is not in it\n".to_owned();
        let width = self.ports.iter().map(|port| port.port.chars().count()).max().unwrap_or(0);
        for port in &self.ports {
            let place = if port.on_gpu { "GPU" } else { "shared memory" };
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "  {:width$}  {:>3} x {:>2} slots  {:>10}  {place}; {}",
                port.port,
                port.cameras,
                port.slots,
                mib(port.bytes),
                port.holds
            );
        }
        let _ = writeln!(
            out,
            "  together: {} in shared memory, {} in GPU memory\n",
            mib(self.host_bytes()),
            mib(self.gpu_bytes())
        );
        out
    }
}

/// Refuses a graph whose frames need more than there is.
pub(super) fn refuse(memory: &Memory, graph: &Graph, available_bytes: u64, report: &mut Report) {
    let needed_bytes = memory.host_bytes();
    if needed_bytes <= available_bytes {
        return;
    }
    let Some(most) = memory.ports.iter().filter(|port| !port.on_gpu).max_by_key(|port| port.bytes) else { return };
    let node = most.port.split('/').next().unwrap_or_default();
    let span = graph.node(node).map_or(graph.root.span, |node| node.id.span);
    let assumed = if most.assumed { ", of which sizes are assumed" } else { "" };
    let message = format!(
        "the frames of this graph need {} of shared memory{assumed}, and this machine or its container has {}; most is '{}': \
         {} x {} slots of {}",
        mib(needed_bytes),
        mib(available_bytes),
        most.port,
        most.cameras,
        most.slots,
        most.holds
    );
    let fix = "lower SLOTS, serve fewer cameras, or state the cameras' sizes (size: 1280x720) in the cameras file";
    report.push(Fault::error(span, message).fix(fix));
}

fn mib(bytes: u64) -> String {
    const MIB: f64 = (1 << 20) as f64;
    match bytes as f64 / MIB {
        mib if mib >= 1024.0 => format!("{:.1} GiB", mib / 1024.0),
        mib if mib >= 10.0 => format!("{mib:.0} MiB"),
        mib => format!("{mib:.1} MiB"),
    }
}
