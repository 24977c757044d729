//! The engine on the stand-ins for TensorRT 8.6 and for the driver, in a process of its own: from settings to outputs, and
//! an engine that serves while another is built. What a stand-in's engine gives follows from its description in
//! tests/cuda-driver/folder/src/tensorrt.cpp: it adds, and its builder's level shows in each output.

use super::settings;
use crate::config::{Precision, Settings};
use crate::engine::Trt;
use millrace_cuda_driver_folder::{STAND_IN, run_on_the_stand_in, tensorrt};
use millrace_frame::TensorDtype;
use millrace_infer::{Batch, Elements, Engine, Flight, Tensor, testing};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn on_the_stand_in() {
    run_on_the_stand_in("suite::", &[("MILLRACE_FAKE_TENSORRT_BUILD_MS", "400")]);
}

#[test]
fn on_a_slow_stand_in() {
    run_on_the_stand_in("suite::", &[("MILLRACE_FAKE_TENSORRT_BUILD_MS", "1"), ("MILLRACE_FAKE_CUDA_DELAY_US", "300")]);
}

mod suite {
    use super::*;

    const SHAPE: [usize; 4] = [1, 3, 16, 24];
    const ELEMENTS: usize = 3 * 16 * 24;
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Settings for a model of the tests, with engines in `folder`; nothing in the process that only starts this one.
    fn with(folder: &Path, model: &Path, level: u32) -> Option<Settings> {
        std::env::var_os(STAND_IN)?;
        Some(Settings {
            library: Some(tensorrt()?.into()),
            engine_cache: Some(folder.join("engines").into()),
            batch: 8,
            build_level: Some(level),
            ..settings(model.to_owned())
        })
    }

    fn open(settings: &Settings) -> Trt {
        let (mut engine, signature) = Trt::open(Path::new("model.onnx"), 1, settings).unwrap();
        assert_eq!(signature.inputs[0].shape, Some(vec![None, Some(3), Some(16), Some(24)]));
        engine.select("images", &["detections"]).unwrap();
        engine.prepare(SHAPE, TensorDtype::F32).unwrap();
        engine
    }

    /// Frames of one number each, `n + 1` for frame `n`: a flight of them, and what it must give at an optimization level.
    fn submit(engine: &mut Trt, count: usize) -> <Trt as Engine>::Flight {
        let frames: Vec<Vec<f32>> = (1..=count).map(|n| vec![n as f32; ELEMENTS]).collect();
        let tensors: Vec<Tensor<'_>> = frames.iter().map(|frame| Tensor::Host(Elements::F32(frame))).collect();
        engine.submit(Batch { shape: SHAPE, dtype: TensorDtype::F32, tensors: &tensors, score: 0.0 }).unwrap()
    }

    /// The level of the engine that computed a batch; each of its outputs is checked.
    fn level_of(flight: <Trt as Engine>::Flight) -> u32 {
        let (mut levels, mut next) = (Vec::new(), 0);
        flight
            .complete(&mut |n, outputs| {
                assert_eq!(
                    (n, outputs.len(), outputs[0].name, outputs[0].shape),
                    (next, 1, "detections", &[1, 6, 2, 3][..])
                );
                next += 1;
                let sum = ((n + 1) * ELEMENTS) as f32;
                let level = (outputs[0].data[0] - sum) / 1000.0;
                let expected: Vec<f32> = (1..=36).map(|k| k as f32 * sum + 1000.0 * level).collect();
                assert_eq!(outputs[0].data, expected);
                levels.push(level as u32);
            })
            .unwrap();
        levels.dedup();
        assert_eq!(levels.len(), 1, "one engine computes a batch");
        levels[0]
    }

    #[test]
    fn settings_become_an_engine_that_computes_batches_of_every_size() {
        let (folder, model) = testing::describe("tiny_open.onnx", &[]);
        for (cuda_graph, profile_for_one) in [(false, true), (true, true), (true, false)] {
            let Some(settings) = with(folder.path(), &model, 3) else { return };
            let mut engine = open(&Settings { cuda_graph, profile_for_one, ..settings });
            assert_eq!(engine.batch(), 8);
            for count in [8, 1, 2, 7, 8, 8, 8, 8, 8, 8, 1] {
                let (first, second) = (submit(&mut engine, count), submit(&mut engine, 9 - count));
                assert_eq!([level_of(first), level_of(second)], [3, 3]);
            }
            assert_eq!(engine.notes(), Vec::<String>::new());
        }
    }

    #[test]
    fn recording_that_fails_is_a_note() {
        let (folder, model) = testing::describe("tiny_open.onnx", &[]);
        let Some(settings) = with(folder.path(), &model, 3) else { return };
        // the stand-in's batches of 5 cannot be recorded
        let mut engine = open(&Settings { cuda_graph: true, batch: 5, ..settings });
        assert!(engine.notes()[0].contains("CUDA_GRAPH is set, but the engine's work cannot be recorded"));
        assert_eq!(level_of(submit(&mut engine, 5)), 3);
    }

    #[test]
    fn the_last_engine_serves_while_another_is_built() {
        let (folder, model) = testing::describe("tiny_open.onnx", &[]);
        let Some(one) = with(folder.path(), &model, 1) else { return };
        drop(open(&one));
        let two = Settings { serve_while_building: true, build_level: Some(2), tf32: !one.tf32, ..one.clone() };
        let mut engine = open(&two);
        let (begun, mut levels) = (Instant::now(), vec![1]);
        while levels.last() != Some(&2) {
            assert!(begun.elapsed() < PATIENCE, "the new engine never served");
            let flights = [submit(&mut engine, 8), submit(&mut engine, 3)];
            levels.extend(flights.map(level_of));
        }
        levels.dedup();
        assert_eq!(levels, [1, 2], "it goes from one to the other once");
        // both are kept, and the one of the settings is used at once
        assert_eq!(level_of(submit(&mut open(&two), 8)), 2);
        assert_eq!(level_of(submit(&mut open(&Settings { serve_while_building: true, ..one }), 8)), 1);
    }

    #[test]
    fn an_engine_that_would_give_something_else_does_not_serve() {
        let (folder, model) = testing::describe("tiny_open.onnx", &[]);
        let Some(one) = with(folder.path(), &model, 1) else { return };
        drop(open(&one));
        let two = Settings { serve_while_building: true, build_level: Some(2), ..one };
        // another model file, another number of frames together
        let (_other_folder, other) = testing::describe("tiny.onnx", &[]);
        let others = [with(folder.path(), &other, 2).unwrap(), Settings { batch: 4, ..two.clone() }];
        for settings in others {
            let mut engine = open(&Settings { serve_while_building: true, ..settings });
            assert_eq!(level_of(submit(&mut engine, 2)), 2);
        }
        // without the setting the engine is waited for
        let mut engine = open(&Settings { serve_while_building: false, build_level: Some(4), ..two });
        assert_eq!(level_of(submit(&mut engine, 2)), 4);
    }

    #[test]
    fn the_last_engine_goes_on_where_no_other_can_be_built() {
        let (folder, model) = testing::describe("tiny_open.onnx", &[]);
        let Some(one) = with(folder.path(), &model, 1) else { return };
        drop(open(&one));
        // the stand-in's builder refuses level 5
        let mut engine =
            open(&Settings { serve_while_building: true, build_level: Some(5), precision: Precision::F16, ..one });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            assert_eq!(level_of(submit(&mut engine, 8)), 1);
        }
    }
}
