//! dora's connection: the one file that names dora.

use super::{Line, Link, Signal, Topology};
use crate::launch::Launch;
use crate::log::logging_here;
use arrow::array::{ArrayRef, StructArray};
use dora_node_api::dora_core::config::DataId;
use dora_node_api::{DoraNode, Event, EventStream, MetadataParameters, NodeResult, StopCause};
use millrace_frame::wire::row::{self, Announcement};
use millrace_pool::Bell;
use millrace_sandbox::Ports;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// dora's events come by a thread of their own, which rings the node's bell for each: so the harness's loop sleeps on
/// one thing only.
pub(crate) struct DoraLink {
    /// `None` only while this is dropped.
    node: Option<DoraNode>,
    signals: Receiver<Signal>,
    over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// The variable in which dora gives a node its configuration.
pub(crate) const CONFIG: &str = "DORA_NODE_CONFIG";
/// How long the end of a node may wait for the listener.
const LOOK_UP: Duration = Duration::from_millis(100);
/// How long each half of the goodbye to dora may take. The daemon does not answer a process that `dora node replace` has
/// put another in the place of, which would wait until it is killed 10 s later. Its exit tells the daemon as much.
const GOODBYE: Duration = Duration::from_secs(2);

impl DoraLink {
    /// Connects to the daemon that started the node; each event comes by `line`.
    pub(crate) fn connect(line: Line, launch: Launch) -> Result<(Self, Topology), String> {
        let Line { to, signals, bell } = line;
        let (node, events) = initialized(&launch)
            .map_err(|e| format!("{e}; a node is started by `dora run` or `millrace run`, not by hand"))?;
        let descriptor = node.dataflow_descriptor().map_err(|e| e.to_string())?;
        let descriptor = serde_json::to_value(descriptor).map_err(|e| e.to_string())?;
        // dora has put the expanded values into the environment
        let mut graph = Topology::of(node.id().as_ref(), &descriptor, |key| launch.variable(key));
        graph.restarts = u64::from(node.restart_count());
        graph.dataflow = node.dataflow_id().to_string();
        graph.launch = launch;
        let over = Arc::new(AtomicBool::new(false));
        let listener = {
            let (inputs, over) = (graph.inputs.clone(), over.clone());
            let listen = logging_here(move || listen(events, &inputs, &to, &bell, &over));
            std::thread::Builder::new().name("dora-events".into()).spawn(listen).map_err(|e| e.to_string())?
        };
        Ok((Self { node: Some(node), signals, over, listener: Some(listener) }, graph))
    }
}

/// Connects with every output on the way by the daemon.
///
/// dora's own choice is a direct one from process to process, over ports that belong to nodes and not to processes. The
/// process that `dora node replace` puts in the place of another starts while that holds the port, so it gets none; who is
/// replaced next on the other side of an edge then looks for it there, and not a message comes through. By the daemon, none
/// is lost for want of processor time either, and we send two a second.
fn initialized(launch: &Launch) -> NodeResult<(DoraNode, EventStream)> {
    let given = launch.variable(CONFIG);
    match given.and_then(|text| by_the_daemon(&text)).map(serde_yaml::from_value) {
        Some(Ok(config)) => DoraNode::init(config),
        // the environment of a process of several nodes has no configuration, so there that is an error
        _ => DoraNode::init_from_env_force(),
    }
}

/// The graph as dora hands it to the node, before the node connects; `None` where it is not what dora 1.1 gives.
pub(crate) fn given(launch: &Launch) -> Option<Topology> {
    let config: serde_yaml::Value = serde_yaml::from_str(&launch.variable(CONFIG)?).ok()?;
    let text = |key: &str| Some(config.get(key)?.as_str()?.to_owned());
    let descriptor = serde_json::to_value(config.get("dataflow_descriptor")?).ok()?;
    let graph = Topology::of(&text("node_id")?, &descriptor, |key| launch.variable(key));
    Some(Topology { dataflow: text("dataflow_id")?, launch: launch.clone(), ..graph })
}

/// The ports that dora's own connections need; `None` where the environment configures zenoh in another way than dora's
/// daemon does, so that they cannot be known.
pub(crate) fn ports(launch: &Launch) -> Option<Ports> {
    let changed = ["ZENOH_CONFIG", "DORA_ZENOH_CONFIG_OVERLAY"].iter().any(|name| launch.raw(name).is_some());
    let endpoints = |name: &str| launch.variable(name).filter(|text| !text.is_empty());
    // without an endpoint, zenoh finds its peers by multicast
    let connect = endpoints("DORA_ZENOH_CONNECT").filter(|_| !changed)?;
    let listen = endpoints("DORA_ZENOH_LISTEN");
    let extra = endpoints("DORA_ZENOH_LISTEN_EXTRA");
    let config: serde_yaml::Value = serde_yaml::from_str(&launch.variable(CONFIG)?).ok()?;
    let daemon = config.get("daemon_communication")?;
    let daemon = match daemon {
        serde_yaml::Value::Tagged(tagged) => &tagged.value,
        other => other,
    };
    // a daemon that is reached by a socket's path has no port
    let daemon = daemon.get("socket_addr").and_then(serde_yaml::Value::as_str).unwrap_or_default();
    let of = |text: &str| -> BTreeSet<u16> {
        text.split(',').filter_map(|endpoint| endpoint.trim().rsplit(':').next()?.parse().ok()).collect()
    };
    let listen = listen.map_or(BTreeSet::from([0]), |listen| of(&listen));
    let bind = listen.into_iter().chain(extra.iter().flat_map(|extra| of(extra))).collect();
    Some(Ports { connect: of(&connect).into_iter().chain(of(daemon)).collect(), bind })
}

/// Prepares the environment of a process that several nodes are to connect from, and that is started with one node's.
///
/// dora gives each node a port for its direct connections, which no output of ours uses. Each connection of the process gets
/// one of its own.
pub(crate) fn for_several(command: &mut Command) {
    command.env_remove(CONFIG).env("DORA_ZENOH_LISTEN", "tcp/127.0.0.1:0").env_remove("DORA_ZENOH_LISTEN_EXTRA");
}

/// A node's configuration with the way of its outputs changed; `None` where it is not what dora 1.1 gives.
///
/// Values of the graph's `env:` with a '$' are left out: dora would expand what it has expanded before. This process's
/// environment has them.
fn by_the_daemon(config: &str) -> Option<serde_yaml::Value> {
    let mut config: serde_yaml::Value = serde_yaml::from_str(config).ok()?;
    for (_, route) in config.get_mut("output_routing")?.as_mapping_mut()? {
        route.as_mapping_mut()?.insert("daemon_only".into(), true.into());
    }
    if let Some(graph) = config.get_mut("dataflow_descriptor") {
        leave_out_expanded(graph);
        let nodes = graph.get_mut("nodes").and_then(serde_yaml::Value::as_sequence_mut);
        nodes.into_iter().flatten().for_each(leave_out_expanded);
    }
    Some(config)
}

fn leave_out_expanded(owner: &mut serde_yaml::Value) {
    let env = owner.get_mut("env").and_then(serde_yaml::Value::as_mapping_mut);
    for (_, value) in env.into_iter().flatten() {
        if value.as_str().is_some_and(|text| text.contains('$')) {
            *value = "".into();
        }
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
        let sent = to.send(signal).is_ok();
        bell.ring();
        if stop || !sent {
            return;
        }
    }
}

fn signal(event: Event, inputs: &[String]) -> Signal {
    match event {
        Event::Input { id, data, .. } => {
            let input = id.to_string();
            if !inputs.contains(&input) {
                return Signal::Nudge; // a timer
            }
            match row::decode_announcement(data.as_array()) {
                Ok(Some(Announcement { at, device })) => Signal::Announced { input, at, device },
                Ok(None) => Signal::Nudge, // of one frame, which the directory leads to
                Err(why) => Signal::Noise { input, why: why.to_string() },
            }
        }
        Event::InputClosed { id } => Signal::Closed { input: id.to_string() },
        Event::ParamUpdate { key, value } => Signal::Param { key, value: Some(value) },
        Event::ParamDeleted { key } => Signal::Param { key, value: None },
        Event::Stop(StopCause::AllInputsClosed) => Signal::AllClosed,
        Event::Stop(_) => Signal::Stop,
        _ => Signal::Nudge,
    }
}

impl Link for DoraLink {
    fn next(&mut self) -> Signal {
        // the last message of the listener says that it ended
        self.signals.try_recv().unwrap_or(Signal::Quiet)
    }

    fn ring(&mut self, port: &'static str, row: StructArray) -> Result<(), String> {
        let row: ArrayRef = Arc::new(row);
        let Some(node) = &mut self.node else { return Ok(()) };
        node.send_output(DataId::from(port.to_owned()), MetadataParameters::default(), row)
            .map_err(|e| format!("output '{port}': {e}"))
    }
}

impl Drop for DoraLink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let (listener, node) = (self.listener.take(), self.node.take());
        // dora wants its event stream closed before its node
        let heard_out = in_time("dora-stream-end", move || {
            if let Some(listener) = listener {
                let _ = listener.join();
            }
        });
        // also then: it is what removes zenoh's segments
        let left = in_time("dora-node-end", move || drop(node));
        if !(heard_out && left) {
            tracing::debug!("dora's daemon did not answer the goodbye; leaving without it");
        }
    }
}

/// Does something in a thread and waits for its end, not longer than [`GOODBYE`]; `false` when it still runs.
fn in_time(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, over) = channel::<()>();
    let run = move || {
        work();
        drop(done);
    };
    // where no thread can be made, the work is dropped here, which does it or nothing
    std::thread::Builder::new().name(name.to_owned()).spawn(run).is_err()
        || over.recv_timeout(GOODBYE) == Err(RecvTimeoutError::Disconnected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::{CONFIG, by_the_daemon, ports};
    use crate::launch::{Launch, Member};
    use crate::usage::Account;

    #[test]
    fn the_ports_of_dora_are_those_that_its_daemon_names() {
        let config = "node_id: a\ndaemon_communication: !Tcp\n  socket_addr: 127.0.0.1:42275\n";
        let given = |more: &[(&str, &str)]| {
            let all = [&[(CONFIG, config)][..], more].concat();
            let member = Member { group: String::new(), account: Account::open() };
            ports(&Launch::of(1, member, all.iter().map(|(name, value)| (name.into(), value.into())).collect()))
        };
        let connect = ("DORA_ZENOH_CONNECT", "tcp/127.0.0.1:34633,tcp/[::1]:34634");
        let known = given(&[connect, ("DORA_ZENOH_LISTEN", "tcp/127.0.0.1:43579")]).unwrap();
        assert_eq!(known.connect.into_iter().collect::<Vec<_>>(), [34633, 34634, 42275]);
        assert_eq!(known.bind.into_iter().collect::<Vec<_>>(), [43579]);
        assert_eq!(given(&[connect]).unwrap().bind.into_iter().collect::<Vec<_>>(), [0], "any port");
        assert_eq!(given(&[]), None, "peers are found by multicast");
        assert_eq!(given(&[connect, ("ZENOH_CONFIG", "zenoh.json5")]), None);
    }

    #[test]
    fn outputs_go_by_the_daemon() {
        let config = "node_id: a\ndaemon_communication: !Tcp\n  socket_addr: 127.0.0.1:1\noutput_routing:\n  frame:\n    \
                      daemon_only: false\n    required_ackers:\n    - node_id: b\n      input_id: frame\n";
        let changed = by_the_daemon(config).and_then(|config| serde_yaml::to_string(&config).ok());
        assert_eq!(changed, Some(config.replace("false", "true")));
        let with_env = format!(
            "{config}dataflow_descriptor:\n  env:\n    A: a$b\n  nodes:\n  - env:\n      B: $HOME\n      C: 5\n"
        );
        let changed = by_the_daemon(&with_env).unwrap_or_default();
        let env = |owner: &serde_yaml::Value| serde_json::to_value(&owner["env"]).unwrap_or_default();
        assert_eq!(env(&changed["dataflow_descriptor"]), serde_json::json!({ "A": "" }));
        assert_eq!(env(&changed["dataflow_descriptor"]["nodes"][0]), serde_json::json!({ "B": "", "C": 5 }));
        assert_eq!(by_the_daemon("node_id: a"), None);
        assert_eq!(by_the_daemon("a: ["), None);
    }
}
