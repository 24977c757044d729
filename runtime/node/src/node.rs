//! What a node is.

use crate::{Context, Findings, Input, NodeError, Outputs, Sandbox};
use millrace_frame::{CameraStatus, PayloadKind};
use std::time::Duration;

/// A node: settings, ports, and what it does to what comes in.
///
/// All calls come from one thread, the harness's.
pub trait Node: Sized {
    /// The binary's name, the crate's, and the page's in `docs/nodes/`.
    const NAME: &'static str;
    /// What it does, in one line.
    const SUMMARY: &'static str;
    /// Its ports.
    const PORTS: Ports;
    /// It can run in a process of several nodes (`PROCESS`): it changes nothing that concerns a whole process, and
    /// `millrace-stages` contains it.
    const SHARES_PROCESS: bool = false;
    /// Its settings, as the `env:` of a graph gives them. Each field is documented, in `SCREAMING_SNAKE_CASE`, and
    /// has a default where there is a sensible one.
    type Settings: serde::de::DeserializeOwned + schemars::JsonSchema;

    /// Says which of the settings, each of which can be read, exclude each other or have no effect, and where the node listens.
    /// Asked before [`open`](Self::open), which is not called where something is refused, and by `millrace check`. Looks at
    /// files and folders at most, and opens no library, device or connection.
    fn check(settings: &Self::Settings, findings: &mut Findings<'_>) {
        let _ = (settings, findings);
    }

    /// How far the node's process can be put into a sandbox. Asked before the node is connected to dora, in a process that
    /// has one thread.
    fn sandbox(settings: &Self::Settings, node: &str) -> Sandbox {
        let _ = (settings, node);
        Sandbox::None
    }

    /// Makes the node. What fails here fails before the first frame, with the graph's user looking at it.
    fn open(settings: Self::Settings, cx: &Context) -> Result<Self, NodeError>;

    /// Takes one item of the input port `port`.
    fn on_input(&mut self, port: &'static str, input: Input, out: &mut Outputs) -> Result<(), NodeError>;

    /// A setting that is live (`x-millrace-live` in its schema) has changed. `settings` are all of them, as
    /// [`open`](Self::open) would get them now; what is not live is as it was. Called between two items.
    ///
    /// # Errors
    /// Why it cannot be: everything stays as it was.
    fn change(&mut self, settings: Self::Settings) -> Result<(), String> {
        drop(settings);
        Err(format!("{} declares the setting to be live and does not take it", Self::NAME))
    }

    /// A camera whose frames come in here has another state, or another node reports it now. Called between two items.
    fn on_camera(&mut self, status: &CameraStatus) {
        let _ = status;
    }

    /// The frames of an input will be on the GPU of this number, by its producer's word. Called before the node has
    /// that input, so that what has to be loaded on the GPU is there before the first frame; frames may still be elsewhere.
    ///
    /// # Errors
    /// What the first frame would meet. It is logged, and the node goes on.
    fn expect_frames_on(&mut self, device: u32) -> Result<(), NodeError> {
        let _ = device;
        Ok(())
    }

    /// How many items the node wants at once, where so many are there.
    fn batch(&self) -> usize {
        1
    }

    /// How long the first item of a batch waits for the others, at most. `None`: as long as pays by the rate at which
    /// frames come, a few milliseconds at most.
    fn batch_wait(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    /// Whether the node accepts a batch now, where so many items wait. Until it does they wait in their pools, unleased; a
    /// node whose answer has changed wakes the loop ([`Context::waker`]).
    fn accepts(&self, waiting: usize) -> bool {
        let _ = waiting;
        true
    }

    /// How many items were accepted and have no result yet. The loop goes on until there are none.
    fn in_work(&self) -> usize {
        0
    }

    /// Publishes what has become of items since the last call, and gives the number of each one's frame and its result. For
    /// nodes whose work is done by threads of their own, which wake the loop when there is something. Must not wait for them.
    fn complete(&mut self, out: &mut Outputs) -> Vec<(u64, Result<(), NodeError>)> {
        let _ = out;
        Vec::new()
    }

    /// Takes up to [`batch`](Self::batch) items of any ports, in the order in which they came, and gives each item's
    /// result: the fault of one loses that one. Or gives no result at all: then they are all in work, and
    /// [`complete`](Self::complete) gives each one's.
    fn on_batch(&mut self, batch: Vec<(&'static str, Input)>, out: &mut Outputs) -> Vec<Result<(), NodeError>> {
        batch.into_iter().map(|(port, input)| self.on_input(port, input, out)).collect()
    }

    /// Sources: makes progress. Called whenever nothing else is to be done.
    fn produce(&mut self, out: &mut Outputs) -> Result<Progress, NodeError> {
        let _ = out;
        Ok(Progress::Passive)
    }

    /// Every input has ended, or the source has, or a stop was asked for: publishes what is still held.
    fn drain(&mut self, out: &mut Outputs) -> Result<(), NodeError> {
        let _ = out;
        Ok(())
    }
}

/// What [`Node::produce`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something was done: call again at once.
    Busy,
    /// Nothing is to be done before this time has passed or a message arrives.
    Idle(Duration),
    /// The source has ended: drain and exit.
    End,
    /// This node is no source: it only reacts.
    Passive,
}

/// The ports of a node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// What it reads.
    pub inputs: &'static [PortIn],
    /// What it publishes.
    pub outputs: &'static [PortOut],
}

/// An input port.
#[derive(Clone, Copy, Debug)]
pub struct PortIn {
    /// Its name in a graph.
    pub name: &'static str,
    /// What it takes.
    pub accepts: &'static [PayloadKind],
    /// It reads frames in a GPU's memory as well as in host memory.
    pub on_gpu: bool,
    /// What it does when it falls behind in live flow.
    pub order: Order,
    /// A graph must connect it.
    pub required: bool,
    /// One line.
    pub doc: &'static str,
}

/// Which items an input port wants in live flow. In lossless flow it gets every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The newest ones of each camera: a backlog over `BACKLOG` or `MAX_AGE_MS` loses its oldest, by name.
    Newest,
    /// Every one that is still there, in order: a decoder's packets, or records that must not be thinned out.
    Every,
}

/// An output port.
#[derive(Clone, Copy, Debug)]
pub struct PortOut {
    /// Its name in a graph.
    pub name: &'static str,
    /// What it carries.
    pub carries: PayloadKind,
    /// One line.
    pub doc: &'static str,
}
