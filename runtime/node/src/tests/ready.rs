//! A node gets ready for frames on a GPU before it has an input.

use super::{SOON, image, value};
use crate::testing::{Bench, Seen};
use crate::{Context, Input, Metrics, Node, NodeError, Order, Outputs, PortIn, PortOut, Ports};
use millrace_frame::{Device, PayloadKind};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Passes images on, where it was ready for them.
struct Ready {
    metrics: Metrics,
    fails: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
struct Settings {
    /// It does not get ready.
    #[serde(default)]
    fails: bool,
}

impl Node for Ready {
    const NAME: &'static str = "ready";
    const SUMMARY: &'static str = "counts what it expects";
    const PORTS: Ports = Ports {
        inputs: &[PortIn {
            name: "frame",
            accepts: &[PayloadKind::Image],
            on_gpu: true,
            order: Order::Newest,
            required: true,
            doc: "images",
        }],
        outputs: &[PortOut { name: "same", carries: PayloadKind::Image, doc: "images" }],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        Ok(Self { metrics: cx.metrics().clone(), fails: settings.fails })
    }

    fn expect_frames_on(&mut self, device: u32) -> Result<(), NodeError> {
        // long enough for a producer that does not wait to be ahead
        std::thread::sleep(Duration::from_millis(100));
        self.metrics.gauge("ready_for", "", device.into());
        self.metrics.count("expected", "", 1);
        if self.fails { Err(NodeError::fatal("no such GPU here")) } else { Ok(()) }
    }

    fn on_input(&mut self, _: &str, input: Input, out: &mut Outputs) -> Result<(), NodeError> {
        let Input::Frame(lease) = input else { unreachable!("the port takes images") };
        if self.metrics.gauged("ready_for", "").is_none() {
            return Err(NodeError::frame("not_ready", &lease.item().source, "a frame came first"));
        }
        let Some(mut slot) = out.slot("same", &lease.item().source, 3)? else { return Ok(()) };
        slot.bytes_mut()[..3].copy_from_slice(&lease.bytes()[..3]);
        out.publish(slot, lease.item())
    }
}

#[test]
fn what_a_producer_announces_is_expected_once_and_before_the_first_frame() {
    for fails in ["false", "true"] {
        let mut bench = Bench::start_before::<Ready>(&[("FAILS", fails)], Device::Cuda(3));
        for seq in 0..5 {
            bench.send("frame", &image(seq), &[seq as u8, 0, 0]).unwrap();
            let (_, input) = bench.receive(SOON).expect("it was ready");
            assert_eq!(value(&Seen::of(input)), (seq, seq as u8));
        }
        let metrics = bench.finish().1.unwrap();
        assert_eq!((metrics.gauged("ready_for", ""), metrics.counted("expected", "")), (Some(3), 1));
    }
}

#[test]
fn frames_in_host_memory_need_no_getting_ready() {
    let mut bench = Bench::start::<Ready>(&[]);
    bench.send("frame", &image(0), &[1, 0, 0]).unwrap();
    let metrics = bench.finish().1.unwrap();
    assert_eq!((metrics.counted("expected", ""), metrics.dropped("not_ready", "cam")), (0, 1));
}
