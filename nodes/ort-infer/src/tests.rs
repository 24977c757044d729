//! ONNX Runtime under the checks of every engine, and libraries that are none.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it measured")]

use crate::config::{ConvSearch, Provider, Settings};
use crate::engine::Ort;
use crate::provider::cure;
use crate::{device, library, provider};
use millrace_frame::{Device, Item, Letterbox, Payload, Size, TensorDesc, Timebase, Timing};
use millrace_infer::{Detector, Engine, InferNode, testing};
use millrace_needs::skip_without;
use millrace_node::Flow;
use millrace_node::testing::remarks;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const CHILD: &str = "MILLRACE_TEST_LIBRARY";

fn settings(model: PathBuf) -> Settings {
    Settings::of_model(model)
}

/// Whether the library can be opened; without it the test is skipped.
fn have_library() -> bool {
    library::environment(None).map_err(|e| skip_without("onnxruntime", e)).is_ok()
}

#[test]
fn it_gives_the_reference() {
    if have_library() {
        testing::gives_the_reference::<Ort>(settings);
    }
}

#[test]
fn it_refuses_what_is_no_fitting_model() {
    if have_library() {
        testing::refuses::<Ort>(settings);
    }
}

#[test]
fn it_opens_the_demo_model() {
    if have_library() {
        testing::opens_the_demo_model::<Ort>(settings);
    }
}

#[test]
fn it_computes_16_bit_floats() {
    if have_library() {
        testing::computes_16_bit_floats::<Ort>(settings);
    }
}

#[test]
fn it_feeds_the_second_input() {
    if have_library() {
        testing::feeds_the_second_input::<Ort>(settings);
        testing::finds_shapes_and_classes::<Ort>(settings);
    }
}

#[test]
fn it_adds_and_checks_models() {
    if have_library() {
        testing::adds_and_checks_models::<Ort>();
        testing::adds_models_of_each_task::<Ort>();
        testing::writes_over_nothing_of_others::<Ort>();
        testing::adds_models_by_their_numbers::<Ort>();
    }
}

#[test]
fn it_answers_as_a_node() {
    if have_library() {
        testing::answers_as_a_node::<Ort>(&[("THREADS", "1")]);
    }
}

#[test]
fn it_changes_while_it_runs() {
    if have_library() {
        testing::changes_while_it_runs::<Ort>(&[("THREADS", "1")]);
    }
}

#[test]
fn settings_are_read() {
    let read = |text: &str| serde_json::from_str::<Settings>(text);
    let settings = read(r#"{"MODEL": "m/model.yml", "LIBRARY": "lib.so", "SPIN": true}"#).unwrap();
    assert_eq!((settings.library.as_deref(), settings.spin), (Some(Path::new("lib.so")), true));
    assert_eq!(&*settings.common.model, Path::new("m/model.yml"));
    assert_eq!((settings.provider, settings.device, settings.batch), (Provider::Cpu, 0, None));
    assert_eq!((settings.cuda_graph, settings.tf32), (false, true));
    assert_eq!((settings.prefer_nhwc, settings.conv_search), (false, ConvSearch::Exhaustive));
    assert_eq!((settings.conv_max_workspace, settings.grid_sample_f32), (true, true));
    assert_eq!((settings.common.in_flight, settings.common.batch_timeout_ms), (None, 30_000));
    let text = r#"{"MODEL": "m", "PREFER_NHWC": true, "CONV_SEARCH": "heuristic", "CONV_MAX_WORKSPACE": false, "GRID_SAMPLE_F32": false}"#;
    let settings = read(text).unwrap();
    assert_eq!((settings.prefer_nhwc, settings.conv_search), (true, ConvSearch::Heuristic));
    assert_eq!((settings.conv_max_workspace, settings.grid_sample_f32), (false, false));

    let text = r#"{"MODEL": "m", "PROVIDER": "tensorrt", "DEVICE": 1, "BATCH": 4, "ENGINE_CACHE": "e", "TF32": false}"#;
    let settings = read(text).unwrap();
    assert_eq!((settings.provider, settings.device, settings.batch), (Provider::Tensorrt, 1, Some(4)));
    assert_eq!((settings.engine_cache().unwrap(), settings.tf32), (PathBuf::from("e"), false));
    let text = read(r#"{"MODEL": "m", "PROVIDER": "gpu"}"#).unwrap_err().to_string();
    assert!(text.contains("`cpu`, `cuda`, `tensorrt`"), "{text}");
}

#[test]
fn what_has_no_part_in_a_provider_is_said_before_the_start() {
    let found = |more: &[(&str, &str)]| {
        let found = remarks::<InferNode<Ort>>(&[&[("MODEL", "m")][..], more].concat());
        let [refused, warned] = [found.refused, found.warned]
            .map(|remarks| remarks.into_iter().map(|remark| remark.setting).collect::<Vec<_>>());
        (refused, warned)
    };
    let none = Vec::<String>::new;
    assert_eq!(found(&[("BATCH", "4"), ("CUDA_GRAPH", "true")]).0, ["BATCH", "CUDA_GRAPH"]);
    assert_eq!(
        found(&[("DEVICE", "0"), ("ENGINE_CACHE", "/e")]),
        (none(), ["DEVICE", "ENGINE_CACHE"].map(str::to_owned).to_vec())
    );
    assert_eq!(found(&[("PROVIDER", "cuda"), ("ENGINE_CACHE", "/e")]).1, ["ENGINE_CACHE"]);
    let tensorrt = [("PROVIDER", "tensorrt"), ("ENGINE_CACHE", "/e"), ("DEVICE", "1")];
    assert_eq!(found(&tensorrt), (none(), none()));
    assert_eq!(found(&[&tensorrt[..], &[("CUDA_GRAPH", "true"), ("BATCH", "2")]].concat()).0, ["CUDA_GRAPH"]);

    // what the model file shows
    let of = |file: &str, head: &str, more: &[(&str, &str)]| {
        let (_folder, model) = testing::describe(file, &[("kind: centre, output: detections, stride_px: 8", head)]);
        let model = model.display().to_string();
        let found = remarks::<InferNode<Ort>>(&[&[("MODEL", &*model), ("PROVIDER", "cuda")][..], more].concat());
        found.refused.into_iter().map(|r| format!("{}: {}", r.setting, r.why)).collect::<Vec<_>>().join("\n")
    };
    let centre = "kind: centre, output: detections, stride_px: 8";
    let fixed = of("tiny.onnx", centre, &[("BATCH", "4")]);
    assert!(fixed.starts_with("BATCH: ") && fixed.contains("is for 1 frame at a time, and BATCH is 4"), "{fixed}");
    assert_eq!(of("tiny_open.onnx", centre, &[("BATCH", "4")]), "");
    let sizes = of("tiny_dfine.onnx", "kind: dfine", &[]);
    assert!(sizes.starts_with("MODEL: ") && sizes.contains("a second input, 'orig_target_sizes'"), "{sizes}");
}

#[test]
fn a_gpu_has_one_copy_of_the_model_and_two_batches_in_work() {
    let cuda = Settings { provider: Provider::Cuda, ..settings("m".into()) };
    assert_eq!((cuda.share(Flow::Live).unwrap(), cuda.share(Flow::Lossless).unwrap()), ((1, 1), (1, 1)));
    assert_eq!((cuda.in_flight(), settings("m".into()).in_flight()), (2, 1));
    let graph = Settings { cuda_graph: true, ..cuda.clone() };

    let refused = |settings: &Settings, part: &str| {
        let text = settings.share(Flow::Live).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    for provider in [Provider::Cuda, Provider::Tensorrt] {
        let mut two = Settings { provider, ..cuda.clone() };
        two.common.workers = Some(2);
        refused(&two, "WORKERS is 2, and at most 1 where PROVIDER is ");
        two.common.workers = Some(1);
        assert_eq!(two.share(Flow::Lossless).unwrap(), (1, 1));
    }
    refused(&Settings { provider: Provider::Cpu, ..graph.clone() }, "CUDA_GRAPH is for a GPU, and PROVIDER is cpu");
    refused(&Settings { prefer_nhwc: true, ..settings("m".into()) }, "PREFER_NHWC is for a GPU");
    refused(&Settings { batch: Some(4), ..settings("m".into()) }, "BATCH is for a GPU");
    let recorded = Settings { provider: Provider::Tensorrt, ..graph };
    assert_eq!((recorded.share(Flow::Live).unwrap(), recorded.in_flight()), ((1, 1), 1));
    refused(&Settings { batch: Some(4), ..recorded.clone() }, "one size of input");
    let mut two = recorded;
    two.common.in_flight = Some(2);
    refused(&two, "one batch in flight");
}

/// The CPU's provider computes 16-bit GridSample with 32-bit floats by itself, and leaves out that its result is rounded to 16
/// bits where it computes what follows with 32 bits, too. So the models differ by no more than that rounding.
#[test]
fn grid_sample_in_32_bits_gives_the_same_numbers() {
    if !have_library() {
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/infer/tests/data/tiny_grid_f16.onnx");
    let (nodes, model) = crate::rewrite::grid_sample_in_f32(&std::fs::read(&file).unwrap()).unwrap().unwrap();
    assert_eq!(nodes, 2);
    let folder = tempfile::tempdir().unwrap();
    let rewritten = folder.path().join("rewritten.onnx");
    std::fs::write(&rewritten, model).unwrap();
    let halves: Vec<u16> = (0..3 * 16 * 24).map(|n| half::f16::from_f32((n * 37 % 256) as f32).to_bits()).collect();
    let [before, after] = [file, rewritten].map(|file| {
        let (mut engine, _) = Ort::open(&file, 1, &settings(file.clone())).unwrap();
        engine.select("images", &["detections"]).unwrap();
        let mut got = Vec::new();
        let read = &mut |outputs: &[millrace_infer::RawTensor<'_>]| got = outputs[0].data.to_vec();
        engine.run([1, 3, 16, 24], millrace_infer::Elements::F16(&halves), read).unwrap();
        got
    });
    assert_eq!(before.len(), 36);
    assert!(before.iter().any(|v| *v != before[0]), "{before:?}");
    // a number of 16 bits is exact to 2^-11 of itself
    for (before, after) in before.iter().zip(&after) {
        assert!((before - after).abs() <= before.abs() / 512.0, "{before} {after}");
    }
}

#[test]
fn a_live_gpu_computes_frames_together_where_nothing_is_set_and_the_model_can() {
    let most = |settings: Settings, flow, open_axis| settings.in_flow(flow).most(open_axis);
    let cuda = Settings { provider: Provider::Cuda, ..settings("m".into()) };
    assert_eq!(most(cuda.clone(), Flow::Live, true), 8);
    assert_eq!(most(cuda.clone(), Flow::Live, false), 1, "a model for one frame");
    assert_eq!(most(cuda.clone(), Flow::Lossless, true), 1);
    assert_eq!(most(settings("m".into()), Flow::Live, true), 1, "a CPU");
    assert_eq!(most(Settings { provider: Provider::Tensorrt, ..cuda.clone() }, Flow::Live, true), 1);
    assert_eq!(most(Settings { cuda_graph: true, ..cuda.clone() }, Flow::Live, true), 1);
    // what is set is so, also where the model cannot: opening it says why
    assert_eq!(most(Settings { batch: Some(16), ..cuda.clone() }, Flow::Live, false), 16);
    assert_eq!(most(Settings { batch: Some(1), ..cuda }, Flow::Live, true), 1);
}

/// The library of CI is the CPU's build.
#[test]
fn a_gpu_is_never_replaced_by_the_cpu() {
    if !have_library() {
        return;
    }
    for provider in [Provider::Cuda, Provider::Tensorrt] {
        let (_folder, model) = testing::describe("tiny.onnx", &[]);
        let settings = Settings { provider, ..settings(model) };
        let Err(error) = Detector::<Ort>::open(&settings, 1) else { panic!("{} was opened", provider.name()) };
        let text = error.to_string();
        if text.contains("not enabled in this build") {
            assert!(text.contains(&format!("PROVIDER={}: ", provider.name())), "{text}");
            assert!(text.contains("pip install --target target/tools/onnxruntime-gpu"), "{text}");
        } else {
            skip_without("onnxruntime", format!("another build than the CPU's: {text}"));
        }
    }
}

#[test]
fn what_the_loader_misses_is_named_with_what_brings_it() {
    // the words of ONNX Runtime around those of the system's loader
    let failed = |name: &str, missing: &str| {
        format!(
            "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& \
             onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
             /o/capi/libonnxruntime_providers_{name}.so with error: {missing}: cannot open shared object file: No such \
             file or directory\n"
        )
    };
    for (name, missing, part) in [
        ("cuda", "libcudnn.so.9", "libcudnn.so.9 is not found by the loader: `pip install nvidia-cudnn-cu13`"),
        ("cuda", "libcublasLt.so.13", "libcublasLt.so.13 is not found by the loader: `pip install nvidia-cuda-runtime"),
        ("cuda", "libcufft.so.12", "nvidia-cufft"),
        ("cuda", "/o/capi/libonnxruntime_providers_cuda.so", "has to lie beside libonnxruntime.so"),
        ("tensorrt", "libnvinfer.so.10", "libnvinfer.so.10 is of TensorRT 10"),
        ("cuda", "libother.so.3", "libother.so.3 is not found by the loader: put the folder"),
    ] {
        let text = cure(Provider::Cuda, &failed(name, missing)).unwrap();
        assert!(text.contains(part), "{text}");
    }
    assert!(cure(Provider::Cuda, "cuDNN library was not found.").unwrap().contains("nvidia-cudnn-cu13"));
    let text = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0";
    assert!(cure(Provider::Cuda, text).unwrap().contains("millrace doctor"));
    // faults of a model are not faults of a provider
    assert_eq!(cure(Provider::Cuda, "Load model from m.onnx failed:Protobuf parsing failed."), None);
}

#[test]
fn where_nodes_run_is_known() {
    if !have_library() {
        return;
    }
    let (_folder, model) = testing::describe("tiny.onnx", &[]);
    let settings = settings(model.clone());
    let file = millrace_detect::Model::load(&model).unwrap().file().unwrap().to_owned();
    let (session, notes) = provider::session(&file, 1, &settings, None).unwrap();
    let parts = device::parts(&session).unwrap();
    assert_eq!(notes, [""; 0], "the CPU was asked for");
    assert!(parts.iter().all(|part| part.provider == "CPUExecutionProvider"), "{parts:?}");
    let operators: Vec<&str> = parts.iter().flat_map(|part| &part.operators).map(String::as_str).collect();
    // the activation may be fused with the convolution
    for operator in ["AveragePool", "Split", "Concat"] {
        assert!(operators.contains(&operator), "{operators:?}");
    }
}

#[test]
fn a_tensor_on_a_gpu_is_refused_on_the_cpu_with_the_cure() {
    if !have_library() {
        return;
    }
    let (_folder, model) = testing::describe("tiny.onnx", &[]);
    let mut detector = Detector::<Ort>::open(&settings(model), 1).unwrap();
    let spec = &detector.model().input;
    let tensor = TensorDesc {
        shape: spec.shape(),
        dtype: spec.dtype,
        layout: spec.layout,
        source_from_model: Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 },
        source_size: Size::new(24, 16),
    };
    let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
    let mut item = Item::on_host("gate", 0, timing, Payload::Tensor(tensor));
    item.device = Device::Cuda(0);
    let error = detector.detect(&item, &[]).unwrap_err();
    assert!(!error.is_of_one_frame());
    let text = error.to_string();
    assert!(text.contains("came as a tensor on the GPU 0"), "{text}");
    assert!(text.ends_with("set PROVIDER=cuda here, or give its producer MEMORY=host"), "{text}");
}

#[test]
fn the_library_is_looked_for_beside_the_binary_then_in_the_tools() {
    let places = library::places(Some(Path::new("/t/release/ort-infer")), Path::new("/r/graphs"));
    let tools = "tools/onnxruntime/onnxruntime/capi";
    assert_eq!(places[0], Path::new("/t/release"));
    assert_eq!(places[1], Path::new("/t").join(tools));
    assert!(places.contains(&Path::new("/r/target").join(tools)));
}

/// Opens the library that the variable names; alone in its process, because a process opens one.
#[test]
#[ignore = "run by the tests below"]
fn child_opens_a_library() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let settings = Settings { library: Some(PathBuf::from(path).into()), ..settings("model.yml".into()) };
    // the same error again: a failure must not leave something locked
    for _ in 0..2 {
        match Ort::open(Path::new("model.onnx"), 1, &settings) {
            Ok(_) => println!("opened"),
            Err(e) => println!("refused: {e}"),
        }
    }
}

/// What a process says that opens `library`, within ten seconds.
fn opened_by_a_child(library: &Path) -> String {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::child_opens_a_library", "--ignored", "--nocapture"])
        .env(CHILD, library)
        .stdout(out.reopen().unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("opening '{}' hangs", library.display());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = std::fs::read_to_string(out.path()).unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

fn refused_with(library: &Path, part: &str) {
    let said = opened_by_a_child(library);
    let refusals: Vec<&str> = said.lines().filter(|l| l.contains("refused: ")).collect();
    assert_eq!(refusals.len(), 2, "{said}");
    for text in refusals {
        assert!(text.contains(part) && text.contains("pip install --target target/tools/onnxruntime"), "{text}");
    }
}

#[test]
fn what_is_no_library_is_refused_with_the_way_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    refused_with(&folder.path().join("none.so"), "which cannot be opened: No such file");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    refused_with(&text, "text.so': it cannot be loaded");
}

#[test]
fn a_library_of_another_api_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let compile = |name: &str, source: &str| {
        let (c, so) = (folder.path().join(format!("{name}.c")), folder.path().join(format!("{name}.so")));
        std::fs::write(&c, source).unwrap();
        let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&so).arg(&c).status();
        done.is_ok_and(|status| status.success()).then_some(so)
    };
    let base = |version: &str| {
        format!(
            "static const void *api(unsigned v) {{ return 0; }}\n\
             static const char *version(void) {{ return \"{version}\"; }}\n\
             static const struct {{ const void *(*a)(unsigned); const char *(*v)(void); }} base = {{ api, version }};\n\
             const void *OrtGetApiBase(void) {{ return &base; }}\n"
        )
    };
    let Some(other) = compile("other", "int other(void) { return 1; }\n") else {
        return skip_without("compiler", "no cc makes a library");
    };
    refused_with(&other, "does not export `OrtGetApiBase`");
    refused_with(&compile("old", &base("1.10.0")).unwrap(), "expected version >= '1.24.x', but got '1.10.0'");
    refused_with(&compile("lying", &base("1.99.0")).unwrap(), "Failed to initialize ORT API");
    let null = "const void *OrtGetApiBase(void) { return 0; }\n";
    refused_with(&compile("null", null).unwrap(), "panicked");
}

/// `cargo test --release -p ort-infer -- --ignored --nocapture milliseconds`
#[test]
#[ignore = "a measurement"]
fn milliseconds_per_inference() {
    let Some(data) = millrace_needs::data() else { return };
    if !have_library() {
        return;
    }
    let file = data.join("models/yolox_nano.onnx");
    for (threads, spin) in [(1, false), (2, false), (2, true)] {
        let settings = Settings { spin, ..settings(file.clone()) };
        testing::measure::<Ort>(&file, threads, &settings, &format!("ONNX Runtime, {threads} threads, spin {spin}"));
    }
}
