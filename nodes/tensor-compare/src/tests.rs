#![allow(clippy::unwrap_used)]

use crate::node::TensorCompare;
use half::f16;
use millrace_ab::model::TensorPair;
use millrace_frame::{Item, Letterbox, Payload, Size, TensorDesc, TensorDtype, TensorLayout, Timebase, Timing};
use millrace_node::Metrics;
use millrace_node::testing::Bench;

fn tensor(dtype: TensorDtype, width: u32) -> TensorDesc {
    let source_from_model = Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
    let (shape, layout) = ([1, 1, 2, width], TensorLayout::Nchw);
    TensorDesc { shape, dtype, layout, source_from_model, source_size: Size::new(width, 2) }
}

/// The contents of the file after these frames came, each as its side, number, tensor and bytes, in this order.
fn run(frames: &[(&'static str, u64, TensorDesc, Vec<u8>)]) -> (Vec<TensorPair>, Metrics) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let mut bench = Bench::start::<TensorCompare>(&[("PATH", &path.display().to_string())]);
    for (side, seq, tensor, bytes) in frames {
        let timing =
            Timing { pts_ns: 1_000 * *seq as i64, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
        bench.send(side, &Item::on_host("cam", *seq, timing, Payload::Tensor(tensor.clone())), bytes).unwrap();
    }
    let (_, metrics) = bench.finish();
    let text = std::fs::read_to_string(&path).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), metrics.unwrap())
}

fn f32s(values: [f32; 4]) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn differences_of_each_frame_are_summed_whatever_the_type() {
    let f16s: Vec<u8> = [0.0, 1.0, 2.5, -4.0].into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
    let (pairs, _) = run(&[
        ("a", 0, tensor(TensorDtype::F32, 2), f32s([0.0, 1.0, 2.0, -1.0])),
        ("b", 0, tensor(TensorDtype::F16, 2), f16s),
        ("b", 1, tensor(TensorDtype::U8, 2), vec![0, 1, 2, 255]),
        ("a", 1, tensor(TensorDtype::F32, 2), f32s([0.0, 1.0, 2.0, 255.0])),
    ]);
    let [first, second] = pairs.as_slice() else { panic!("{pairs:?}") };
    // by hand: 2.0 against 2.5 and -1 against -4
    assert_eq!((first.elements, first.differing, first.sum_squared, first.largest), (4, 2, 9.25, 3.0));
    assert_eq!((first.range_a, first.seq, first.pts_ns), ([-1.0, 2.0], 0, 0));
    assert_eq!((second.elements, second.differing, second.largest, second.seq), (4, 0, 0.0, 1));
    assert_eq!((second.range_a, second.pts_ns, second.source.as_str()), ([0.0, 255.0], 1_000, "cam"));
}

#[test]
fn what_is_no_number_differs_by_as_much_as_can_be_said() {
    let frames = |seq, side, values| (side, seq, tensor(TensorDtype::F32, 2), f32s(values));
    let (pairs, _) = run(&[frames(0, "a", [f32::NAN, 0.0, 0.0, 0.0]), frames(0, "b", [f32::NAN, 0.0, 0.0, 0.0])]);
    assert_eq!(pairs[0].differing, 1);
    assert!(pairs[0].largest > 3.4e38, "{}", pairs[0].largest);
}

#[test]
fn other_shapes_are_counted_and_named() {
    let (pairs, metrics) =
        run(&[("a", 0, tensor(TensorDtype::U8, 2), vec![0; 4]), ("b", 0, tensor(TensorDtype::U8, 3), vec![0; 6])]);
    assert!(pairs.is_empty());
    assert_eq!(metrics.dropped("not_comparable", "cam"), 1);
}

/// More frames than a pool has slots, of one side alone: it is let through, and what has no partner is counted.
#[test]
fn a_side_that_runs_ahead_or_ends_early_is_no_deadlock() {
    let frame = |side, seq: u64| (side, seq, tensor(TensorDtype::U8, 2), vec![seq as u8; 4]);
    let ahead = (0..12).map(|seq| frame("a", seq));
    let late = (0..10).map(|seq| frame("b", seq));
    let (pairs, metrics) = run(&ahead.chain(late).collect::<Vec<_>>());
    assert_eq!(pairs.iter().map(|pair| pair.seq).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert!(pairs.iter().all(|pair| pair.differing == 0));
    assert_eq!((metrics.dropped("only_a", "cam"), metrics.dropped("only_b", "cam")), (2, 0));
}
