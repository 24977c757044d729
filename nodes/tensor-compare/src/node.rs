//! The node: two sides in, one line for each frame that both made.

use crate::compare::{compare, misfit};
use crate::config::Settings;
use millrace_ab::model::TensorPair;
use millrace_frame::{Payload, PayloadKind, TensorDesc, counted};
use millrace_node::{
    Context, FrameLease, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, Ports, Progress, create_file,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

/// A frame whose partner has not come.
enum Waiting {
    /// Where it lies: its producer waits when it has given out all its slots, so that neither side runs away.
    There(FrameLease),
    /// A copy, made where both sides would wait for each other for ever.
    Copied(TensorDesc, Vec<u8>),
}

/// `tensor-compare`.
pub(crate) struct TensorCompare {
    settings: Settings,
    metrics: Metrics,
    file: BufWriter<File>,
    /// Of side a and of side b, by camera and number.
    waiting: [BTreeMap<(String, u64), Waiting>; 2],
    copied_bytes: u64,
    last_input: Instant,
}

/// So long nothing comes when the producers of both sides have no slot left, for frames that do not match.
const STUCK: Duration = Duration::from_millis(500);

const SIDES: [&str; 2] = ["a", "b"];

const fn port(name: &'static str, doc: &'static str) -> PortIn {
    PortIn { name, accepts: &[PayloadKind::Tensor], on_gpu: true, order: Order::Every, required: true, doc }
}

impl Node for TensorCompare {
    const NAME: &'static str = "tensor-compare";
    const SUMMARY: &'static str = "compares the tensors of two arms, for comparisons of graphs";
    const PORTS: Ports =
        Ports { inputs: &[port("a", "tensors of arm A"), port("b", "tensors of arm B")], outputs: &[] };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let file = create_file(&settings.path, false)
            .map_err(|e| NodeError::fatal(format!("PATH: {} cannot be written: {e}", settings.path.display())))?;
        Ok(Self {
            settings,
            metrics: cx.metrics().clone(),
            file: BufWriter::new(file),
            waiting: Default::default(),
            copied_bytes: 0,
            last_input: Instant::now(),
        })
    }

    fn on_input(&mut self, port: &'static str, input: Input, _: &mut Outputs) -> Result<(), NodeError> {
        self.last_input = Instant::now();
        let Input::Frame(lease) = input else {
            return Err(NodeError::fatal(format!("'{port}' carried something else than a tensor")));
        };
        let side = usize::from(port == SIDES[1]);
        let key = (lease.item().source.clone(), lease.item().seq);
        let Some(partner) = self.waiting[1 - side].remove(&key) else {
            if self.waiting[side].insert(key.clone(), Waiting::There(lease)).is_some() {
                self.metrics.drop("twice", &key.0, 1);
            }
            return Ok(());
        };
        if let Waiting::Copied(_, bytes) = &partner {
            self.copied_bytes -= bytes.len() as u64;
        }
        let timing = lease.item().timing;
        let here = Waiting::There(lease);
        let (a, b) = if side == 0 { (&here, &partner) } else { (&partner, &here) };
        let ((a, a_bytes), (b, b_bytes)) = (a.look()?, b.look()?);
        if let Some(why) = misfit(&a, &b) {
            return Err(NodeError::frame("not_comparable", &key.0, format!("frame {}: {why}", key.1)));
        }
        let (source, seq) = key;
        let mut pair = TensorPair {
            source,
            seq,
            pts_ns: timing.pts_ns,
            elements: 0,
            differing: 0,
            sum_squared: 0.0,
            largest: 0.0,
            range_a: [0.0; 2],
        };
        compare((&a, &a_bytes), (&b, &b_bytes), &mut pair);
        self.metrics.count("compared", &pair.source, 1);
        let mut line = serde_json::to_vec(&pair).map_err(NodeError::fatal)?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| self.cannot_write(&e))
    }

    fn produce(&mut self, _: &mut Outputs) -> Result<Progress, NodeError> {
        if self.last_input.elapsed() >= STUCK {
            self.copy_what_waits()?;
        }
        Ok(Progress::Idle(STUCK / 2))
    }

    fn drain(&mut self, _: &mut Outputs) -> Result<(), NodeError> {
        for (side, waiting) in ["only_a", "only_b"].into_iter().zip(&self.waiting) {
            for (source, _) in waiting.keys() {
                self.metrics.drop(side, source, 1);
            }
            if let Some((source, seq)) = waiting.keys().next() {
                let frames = counted(waiting.len(), "frame", "frames");
                tracing::warn!("{side}: the other side has not made {frames}, camera '{source}' frame {seq} first");
            }
        }
        self.file.flush().map_err(|e| self.cannot_write(&e))
    }
}

impl TensorCompare {
    /// Gives the producers their slots back.
    fn copy_what_waits(&mut self) -> Result<(), NodeError> {
        for waiting in self.waiting.iter_mut().flat_map(BTreeMap::values_mut) {
            let Waiting::There(lease) = waiting else { continue };
            let (tensor, bytes) = look(lease)?;
            let bytes = bytes[..tensor.bytes() as usize].to_vec();
            self.copied_bytes += bytes.len() as u64;
            *waiting = Waiting::Copied(tensor, bytes);
        }
        if self.copied_bytes > self.settings.budget_mib << 20 {
            let [a, b] = [0, 1].map(|side| self.waiting[side].len());
            return Err(NodeError::fatal(format!(
                "{a} of the frames of 'a' and {b} of 'b' wait for their partners, more than BUDGET_MIB={} holds: \
                 the sides are so far apart, as many cameras can be (raise BUDGET_MIB, or compare fewer frames: \
                 'millrace ab --quality-frames'), or they have other cameras or other frame numbers (compare graphs \
                 with the same sources)",
                self.settings.budget_mib
            )));
        }
        Ok(())
    }

    fn cannot_write(&self, e: &std::io::Error) -> NodeError {
        NodeError::fatal(format!("{} cannot be written: {e}", self.settings.path.display()))
    }
}

impl Waiting {
    fn look(&self) -> Result<(TensorDesc, std::borrow::Cow<'_, [u8]>), NodeError> {
        match self {
            Self::There(lease) => look(lease),
            Self::Copied(tensor, bytes) => Ok((tensor.clone(), bytes.as_slice().into())),
        }
    }
}

fn look(lease: &FrameLease) -> Result<(TensorDesc, std::borrow::Cow<'_, [u8]>), NodeError> {
    let Payload::Tensor(tensor) = &lease.item().payload else {
        return Err(NodeError::fatal("a port carried something else than a tensor"));
    };
    Ok((tensor.clone(), lease.on_host()?))
}
