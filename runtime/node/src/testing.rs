//! Runs a node without dora: real pools, doorbells over a channel.
//!
//! A test is the node's neighbours: it publishes into the node's inputs and reads what comes out.

use crate::context::StopFlag;
use crate::gpu::{GpuSettings, Queue};
use crate::link::{Link, Signal, Topology};
use crate::metrics::Metrics;
use crate::node::{Node, PortIn, PortOut, Ports};
use crate::outputs::Outputs;
use crate::settings::{CommonSettings, Doorbell, Exchange, FlowSetting, Handover, LogLevel, SandboxSetting};
use crate::{Input, NodeError};
use arrow::array::StructArray;
use millrace_cuda::Gpu;
use millrace_frame::wire::row::{self, Announcement};
use millrace_frame::{Detections, Device, Item, Timing};
use millrace_graph::remarks::{Asked, Remarks};
use millrace_pool::Bell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

struct ChannelLink {
    signals: Receiver<Signal>,
    bells: Vec<(&'static str, String, Wire)>,
}

/// A way to say something to a neighbour, and to wake it.
#[derive(Clone)]
struct Wire {
    signals: Sender<Signal>,
    bell: Bell,
}

impl Wire {
    fn send(&self, signal: Signal) {
        // a neighbour that has left hears nothing
        let _ = self.signals.send(signal);
        self.bell.ring();
    }
}

impl Link for ChannelLink {
    fn next(&mut self) -> Signal {
        match self.signals.try_recv() {
            Ok(signal) => signal,
            Err(TryRecvError::Empty) => Signal::Quiet,
            Err(TryRecvError::Disconnected) => Signal::Stop,
        }
    }

    fn ring(&mut self, port: &'static str, row: StructArray) -> Result<(), String> {
        let announced = row::decode_announcement(&row).map_err(|e| e.to_string())?;
        for (from, to, bell) in &self.bells {
            if *from == port {
                bell.send(announced.map_or(Signal::Nudge, |Announcement { at, device }| Signal::Announced {
                    input: to.clone(),
                    at,
                    device,
                }));
            }
        }
        Ok(())
    }
}

/// A copy of what a node published: a node does not end before its consumers have given its frames back.
#[derive(Clone, Debug)]
pub enum Seen {
    /// An image, a tensor or a packet, and its slot's bytes.
    Frame(Item, Vec<u8>),
    /// Detections.
    Detections(Detections),
}

impl Seen {
    /// Copies, and gives the slot back.
    pub fn of(input: Input) -> Self {
        match input {
            Input::Frame(lease) => {
                let bytes = lease.on_host().expect("a frame can be copied").into_owned();
                Self::Frame(lease.item().clone(), bytes)
            }
            Input::Detections(found) => Self::Detections(found),
        }
    }
}

/// What `N` says of these settings, all given to it alone, before it is opened: what it refuses, and what it warns of, each
/// with the setting that it is about.
pub fn remarks<N: Node>(settings: &[(&str, &str)]) -> Remarks {
    let given = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let settings: BTreeMap<String, String> = settings.iter().map(given).collect();
    let asked = Asked { node: "node".to_owned(), own: settings.keys().cloned().collect(), settings };
    crate::findings::remarks::<N>(&asked).expect("settings that can be read")
}

/// A node under test, on a thread of its own, with a test for all its neighbours.
pub struct Bench {
    feed: Outputs,
    to_node: Wire,
    inputs: Vec<&'static str>,
    results: crate::inputs::Inputs,
    from_node: Receiver<Signal>,
    metrics: Metrics,
    node: Option<JoinHandle<Result<u8, String>>>,
}

impl Bench {
    /// Starts `N` with these settings, every port connected, in lossless flow unless the settings say otherwise.
    pub fn start<N: Node>(settings: &[(&str, &str)]) -> Self {
        Self::start_before::<N>(settings, Device::Host)
    }

    /// The same, behind a producer that announces that its frames will be on `device`.
    pub fn start_before<N: Node>(settings: &[(&str, &str)], device: Device) -> Self {
        Self::started::<N>(settings, device, 0)
    }

    /// As [`start`](Self::start), of a node that dora has started again.
    pub fn start_again<N: Node>(settings: &[(&str, &str)]) -> Self {
        Self::started::<N>(settings, Device::Host, 1)
    }

    fn started<N: Node>(settings: &[(&str, &str)], device: Device, restarts: u64) -> Self {
        let [node_bell, test_bell] = [(); 2].map(|()| Bell::create().expect("a bell"));
        let (signals, node_signals) = channel();
        let to_node = Wire { signals, bell: node_bell.clone() };
        let (signals, from_node) = channel();
        let to_test = Wire { signals, bell: test_bell.clone() };
        let mirror = |p: &'static PortIn| PortOut { name: p.name, carries: p.accepts[0], doc: "" };
        // Leaked: ports are constants of a node, and these few bytes live as long as a test.
        let feeds: &'static [PortOut] = Vec::leak(N::PORTS.inputs.iter().map(mirror).collect());
        let accept = |p: &'static PortOut| PortIn {
            name: p.name,
            accepts: std::slice::from_ref(&p.carries),
            on_gpu: true,
            order: crate::Order::Every,
            required: true,
            doc: "",
        };
        let sinks: &'static [PortIn] = Vec::leak(N::PORTS.outputs.iter().map(accept).collect());
        let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let flow = if settings.iter().any(|(k, _)| *k == "FLOW") { Vec::new() } else { text(&[("FLOW", "lossless")]) };
        let under_test = Topology {
            node: "node".into(),
            restarts,
            inputs: feeds.iter().map(|p| p.name.to_owned()).collect(),
            consumers: sinks.iter().map(|p| (p.name.to_owned(), vec![format!("test/{}", p.name)])).collect(),
            env: text(settings),
            root_env: flow,
            ..Topology::default()
        };
        let tester = Topology {
            node: "test".into(),
            inputs: sinks.iter().map(|p| p.name.to_owned()).collect(),
            consumers: feeds.iter().map(|p| (p.name.to_owned(), vec![format!("node/{}", p.name)])).collect(),
            ..Topology::default()
        };
        let common = CommonSettings {
            flow: FlowSetting::Lossless,
            allow_loss: false,
            slots: 4,
            pool_mib: None,
            backlog: None,
            max_age_ms: u64::MAX / 1_000_000,
            lease_timeout_ms: 2_000,
            process: None,
            sandbox: SandboxSetting::Off,
            doorbell: Doorbell::Needed,
            exchange: Exchange::Shared,
            handover: Handover::Event,
            log: LogLevel::Info,
            start_timeout_ms: 20_000,
            restart_timeout_ms: 1_000,
        };
        let bells = feeds.iter().map(|p| (p.name, p.name.to_owned(), to_node.clone())).collect();
        let (_unused, silent) = channel();
        std::mem::forget(_unused); // nothing is ever said to the feeding side, and it must not look like a stop
        let mut feed = Outputs::new(
            Box::new(ChannelLink { signals: silent, bells }),
            &Ports { inputs: &[], outputs: feeds },
            &tester,
            common.clone(),
            Metrics::default(),
            StopFlag::default(),
        );
        feed.device = device;
        feed.make_directories().expect("a directory for each input of the node");
        let sinks_alone = Ports { inputs: sinks, outputs: &[] };
        let results = crate::inputs::Inputs::new(&sinks_alone, &tester, Metrics::default(), test_bell, &common);
        let outputs: Vec<_> = sinks.iter().map(|p| (p.name, p.name.to_owned(), to_test.clone())).collect();
        let metrics = Metrics::default();
        let counts = metrics.clone();
        let node = std::thread::spawn(move || {
            let link = ChannelLink { signals: node_signals, bells: outputs };
            crate::run::run::<N>(Box::new(link), &under_test, &node_bell, &counts)
        });
        let inputs = feeds.iter().map(|p| p.name).collect();
        let mut bench = Self { feed, to_node, inputs, results, from_node, metrics, node: Some(node) };
        // the node waits for its neighbours, unless it has refused its settings
        let until = Instant::now() + Duration::from_secs(20);
        while !bench.results.all_opened() && bench.node.as_ref().is_some_and(|n| !n.is_finished()) {
            assert!(Instant::now() < until, "the node has opened neither its outputs nor its end");
            bench.hear();
            std::thread::sleep(Duration::from_millis(1));
        }
        bench
    }

    fn hear(&mut self) {
        while let Ok(signal) = self.from_node.try_recv() {
            if let Signal::Announced { input, at, .. } = signal {
                self.results.announced(&input, &at);
            }
        }
        self.results.look();
    }

    /// Publishes an item with these bytes on an input of the node.
    pub fn send(&mut self, port: &'static str, item: &Item, bytes: &[u8]) -> Result<(), NodeError> {
        if let Some(mut slot) = self.feed.slot(port, &item.source, bytes.len() as u64)? {
            slot.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
            self.feed.publish(slot, item)?;
        }
        Ok(())
    }

    /// Publishes an item whose bytes are in the memory of `gpu`.
    pub fn send_on(&mut self, gpu: &Gpu, port: &'static str, item: &Item, bytes: &[u8]) -> Result<(), NodeError> {
        let (share, sync) = (GpuSettings::default().share, Arc::default());
        let queue = Queue::synced_by(gpu, share, sync)?;
        if let Some(slot) = self.feed.device_slot(port, &item.source, bytes.len() as u64, &queue)? {
            let to = slot.span().part(0, bytes.len() as u64);
            queue.stream().upload(bytes, to).map_err(NodeError::fatal)?;
            self.feed.publish_device(slot, item.clone(), &queue)?;
        }
        Ok(())
    }

    /// Publishes detections on an input of the node.
    pub fn send_detections(&mut self, port: &'static str, found: &Detections, timing: Timing) -> Result<(), NodeError> {
        self.feed.detections(port, found, timing)
    }

    /// What the node publishes next, and on which output; `None` when nothing comes in `wait`.
    pub fn receive(&mut self, wait: Duration) -> Option<(&'static str, Input)> {
        let until = Instant::now() + wait;
        loop {
            self.hear();
            if let Some(found) = self.results.take(1, 1).pop() {
                return Some(found);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the inputs, waits for the node's own end, and gives what it published that was not yet received, and its
    /// counters or its fault.
    pub fn finish(mut self) -> (Vec<(&'static str, Seen)>, Result<Metrics, String>) {
        for port in std::mem::take(&mut self.inputs) {
            self.to_node.send(Signal::Closed { input: port.to_owned() });
        }
        self.feed.close_pools();
        self.feed.close_directories();
        let node = self.node.take().expect("finish consumes the bench");
        let mut rest = Vec::new();
        while !node.is_finished() {
            rest.extend(self.receive(Duration::from_millis(5)).map(|(port, input)| (port, Seen::of(input))));
        }
        while let Some((port, input)) = self.receive(Duration::ZERO) {
            rest.push((port, Seen::of(input)));
        }
        let result = node.join().unwrap_or_else(|_| Err("the node panicked".into()));
        (rest, result.map(|_| self.metrics))
    }

    /// Waits for the node's end without receiving anything.
    pub fn join(mut self) -> Result<Metrics, String> {
        let node = self.node.take().expect("join consumes the bench");
        node.join().unwrap_or_else(|_| Err("the node panicked".into())).map(|_| self.metrics)
    }

    /// The current values of the node's counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sets a setting to a JSON value, as `dora param set` does. `true` once the node has taken it, `false` once it has
    /// refused it.
    pub fn set(&self, key: &str, json: &str) -> bool {
        self.change(key, Some(serde_json::from_str(json).expect("the test gives JSON")))
    }

    /// Puts back what the node started with, as `dora param delete` does.
    pub fn unset(&self, key: &str) -> bool {
        self.change(key, None)
    }

    fn change(&self, key: &str, value: Option<serde_json::Value>) -> bool {
        let count = |name| self.metrics.counted(name, "");
        let before = (count("params_applied"), count("params_refused"));
        self.to_node.send(Signal::Param { key: key.to_owned(), value });
        let until = Instant::now() + Duration::from_secs(20);
        while (count("params_applied"), count("params_refused")) == before {
            assert!(Instant::now() < until, "the node has neither taken nor refused {key}");
            std::thread::sleep(Duration::from_millis(1));
        }
        count("params_applied") > before.0
    }

    /// Asks the node to stop, as `dora stop` does.
    pub fn stop(&self) {
        self.to_node.send(Signal::Stop);
    }
}
