//! dora's connection: the one file that names dora.

use super::{Link, Signal, Topology};
use arrow::array::{ArrayRef, StructArray};
use dora_node_api::dora_core::config::DataId;
use dora_node_api::{DoraNode, Event, EventStream, MetadataParameters, StopCause, TryRecvError};
use millrace_frame::wire::row;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct DoraLink {
    node: DoraNode,
    events: EventStream,
    inputs: Vec<String>,
    /// dora has said that no input will come: its stream then closes, which is no stop.
    all_closed: bool,
}

impl DoraLink {
    /// Connects to the daemon that started this process.
    pub(crate) fn connect() -> Result<(Self, Topology), String> {
        let (node, events) = DoraNode::init_from_env_force()
            .map_err(|e| format!("{e}; a node is started by `dora run` or `millrace run`, not by hand"))?;
        let descriptor = node.dataflow_descriptor().map_err(|e| e.to_string())?;
        let descriptor = serde_json::to_value(descriptor).map_err(|e| e.to_string())?;
        // dora has put the expanded values into this process's environment
        let mut graph = Topology::of(node.id().as_ref(), &descriptor, |key| std::env::var(key).ok());
        graph.restarts = u64::from(node.restart_count());
        Ok((Self { node, events, inputs: graph.inputs.clone(), all_closed: false }, graph))
    }

    fn signal(&mut self, event: Event) -> Signal {
        match event {
            Event::Input { id, data, .. } => {
                let port = id.to_string();
                if !self.inputs.contains(&port) {
                    return Signal::Nudge; // a timer
                }
                match row::decode_slot(data.as_array()) {
                    Ok(at) => Signal::Bell { port, at },
                    Err(why) => Signal::Noise { port, why: why.to_string() },
                }
            }
            Event::InputClosed { id } => Signal::Closed { port: id.to_string() },
            Event::Stop(StopCause::AllInputsClosed) => {
                self.all_closed = true;
                Signal::AllClosed
            }
            Event::Stop(_) => Signal::Stop,
            _ => Signal::Nudge,
        }
    }
}

impl DoraLink {
    /// What a closed stream means: the end of the inputs, of which the pools may still hold frames, or dora's own end.
    fn closed(&self, wait: Duration) -> Signal {
        if !self.all_closed {
            return Signal::Stop;
        }
        std::thread::sleep(wait);
        Signal::Quiet
    }
}

impl Link for DoraLink {
    fn next(&mut self, wait: Duration) -> Signal {
        match self.events.try_recv() {
            Ok(event) => return self.signal(event),
            Err(TryRecvError::Closed) => return self.closed(wait),
            Err(_) if wait.is_zero() => return Signal::Quiet,
            Err(_) => {}
        }
        match self.events.recv_timeout(wait) {
            // dora reports a time-out as an error; every other error it reports is also only a reason to look around
            Some(Event::Error(text)) => {
                if !text.contains("timed out") {
                    tracing::warn!("dora: {text}");
                }
                Signal::Quiet
            }
            Some(event) => self.signal(event),
            None => self.closed(wait),
        }
    }

    fn ring(&mut self, port: &'static str, row: StructArray) -> Result<(), String> {
        let row: ArrayRef = Arc::new(row);
        self.node
            .send_output(DataId::from(port.to_owned()), MetadataParameters::default(), row)
            .map_err(|e| format!("output '{port}': {e}"))
    }
}
