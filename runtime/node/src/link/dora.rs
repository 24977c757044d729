//! dora's connection: the one file that names dora.

use super::{Link, Signal, Topology};
use arrow::array::{ArrayRef, StructArray};
use dora_node_api::dora_core::config::DataId;
use dora_node_api::{DoraNode, Event, EventStream, MetadataParameters, StopCause};
use millrace_frame::wire::row;
use millrace_pool::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// dora's events come by a thread of their own, which rings the node's bell for each: so the harness's loop sleeps on
/// one thing, whoever wakes it.
pub(crate) struct DoraLink {
    node: DoraNode,
    signals: Receiver<Signal>,
    over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// How long the end of a node may wait for the listener.
const LOOK_UP: Duration = Duration::from_millis(100);

impl DoraLink {
    /// Connects to the daemon that started this process; `bell` rings for each event.
    pub(crate) fn connect(bell: Bell) -> Result<(Self, Topology), String> {
        let (node, events) = DoraNode::init_from_env_force()
            .map_err(|e| format!("{e}; a node is started by `dora run` or `millrace run`, not by hand"))?;
        let descriptor = node.dataflow_descriptor().map_err(|e| e.to_string())?;
        let descriptor = serde_json::to_value(descriptor).map_err(|e| e.to_string())?;
        // dora has put the expanded values into this process's environment
        let mut graph = Topology::of(node.id().as_ref(), &descriptor, |key| std::env::var(key).ok());
        graph.restarts = u64::from(node.restart_count());
        graph.dataflow = node.dataflow_id().to_string();
        let (to, signals) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let listener = {
            let (inputs, over) = (graph.inputs.clone(), over.clone());
            let listen = move || listen(events, &inputs, &to, &bell, &over);
            std::thread::Builder::new().name("dora-events".into()).spawn(listen).map_err(|e| e.to_string())?
        };
        Ok((Self { node, signals, over, listener: Some(listener) }, graph))
    }
}

/// Passes dora's events on until its stream closes or the node ends.
fn listen(mut events: EventStream, inputs: &[String], to: &Sender<Signal>, bell: &Bell, over: &AtomicBool) {
    let mut all_closed = false;
    while !over.load(Ordering::Relaxed) {
        let signal = match events.recv_timeout(LOOK_UP) {
            // dora reports a time-out as an error; every other error it reports is also only a reason to look around
            Some(Event::Error(text)) => {
                if !text.contains("timed out") {
                    tracing::warn!("dora: {text}");
                }
                continue;
            }
            Some(event) => signal(event, inputs),
            // it closes behind the last input, of which the pools may still hold frames: that is no stop
            None if all_closed => return,
            None => Signal::Stop,
        };
        all_closed |= matches!(signal, Signal::AllClosed);
        let stop = matches!(signal, Signal::Stop);
        let heard = to.send(signal).is_ok();
        bell.ring();
        if stop || !heard {
            return;
        }
    }
}

fn signal(event: Event, inputs: &[String]) -> Signal {
    match event {
        Event::Input { id, data, .. } => {
            let port = id.to_string();
            if !inputs.contains(&port) {
                return Signal::Nudge; // a timer
            }
            match row::decode_slot(data.as_array()) {
                Ok(at) => Signal::Bell { port, at },
                Err(why) => Signal::Noise { port, why: why.to_string() },
            }
        }
        Event::InputClosed { id } => Signal::Closed { port: id.to_string() },
        Event::Stop(StopCause::AllInputsClosed) => Signal::AllClosed,
        Event::Stop(_) => Signal::Stop,
        _ => Signal::Nudge,
    }
}

impl Link for DoraLink {
    fn next(&mut self) -> Signal {
        // the listener's end is told by what it sent last
        self.signals.try_recv().unwrap_or(Signal::Quiet)
    }

    fn ring(&mut self, port: &'static str, row: StructArray) -> Result<(), String> {
        let row: ArrayRef = Arc::new(row);
        self.node
            .send_output(DataId::from(port.to_owned()), MetadataParameters::default(), row)
            .map_err(|e| format!("output '{port}': {e}"))
    }
}

impl Drop for DoraLink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // dora wants its event stream closed before its node
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}
