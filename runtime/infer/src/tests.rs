//! The detector around an engine that follows a script.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod in_flight;

use crate::*;
use millrace_detect::RawTensor;
use millrace_frame::*;
use std::path::Path;

/// What [`Scripted`] declares and does, by the name of its model file.
#[derive(serde::Deserialize, schemars::JsonSchema, Clone, Debug, Default)]
struct Orders {
    #[serde(flatten)]
    common: DetectorSettings,
    #[serde(skip)]
    inputs: Vec<Port>,
    #[serde(skip)]
    outputs: Vec<Port>,
    fail_from_run: Option<usize>,
    nan: bool,
    shape: Vec<usize>,
}

#[derive(Debug)]
struct Scripted {
    orders: Orders,
    runs: usize,
    prepared: bool,
}

impl Engine for Scripted {
    const NAME: &'static str = "scripted";
    const SUMMARY: &'static str = "follows a script";
    type Settings = Orders;
    type Flight = Computed;

    fn common(orders: &Orders) -> &DetectorSettings {
        &orders.common
    }

    fn open(_file: &Path, _threads: usize, orders: &Orders) -> Result<(Self, Signature), EngineError> {
        let signature = Signature { inputs: orders.inputs.clone(), outputs: orders.outputs.clone() };
        Ok((Self { orders: orders.clone(), runs: 0, prepared: false }, signature))
    }

    fn select(&mut self, _input: &str, _outputs: &[&str]) -> Result<(), EngineError> {
        Ok(())
    }

    fn prepare(&mut self, shape: [usize; 4], _: TensorDtype) -> Result<(), EngineError> {
        assert_eq!((self.runs, shape), (1, [1, 3, 4, 8]), "it has run once, and not on a frame");
        self.prepared = true;
        Ok(())
    }

    /// The first element of the input is the objectness of one box at (2, 1) to (6, 3).
    fn submit(&mut self, batch: Batch<'_>) -> Result<Computed, EngineError> {
        let [Tensor::Host(data)] = batch.tensors else { panic!("one at a time, in host memory") };
        assert!(self.runs == 0 || self.prepared, "all that a first frame would wait for is done before it");
        self.runs += 1;
        let (first, len) = match *data {
            Elements::F32(data) => (data[0], data.len()),
            Elements::U8(data) => (f32::from(data[0]) / 255.0, data.len()),
            Elements::F16(_) => panic!("refused before"),
        };
        assert_eq!(len, batch.shape.iter().product::<usize>());
        if self.orders.fail_from_run.is_some_and(|n| self.runs > n) {
            return contained("scripted", || panic!("as scripted")).map_err(EngineError::run)?;
        }
        let x = if self.orders.nan { f32::NAN } else { 4.0 };
        let data = [x, 2.0, 4.0, 2.0, first, 1.0];
        let mut computed = Computed::default();
        computed.push(&[RawTensor::whole("out", &self.orders.shape, &data)]);
        Ok(computed)
    }

    fn notes(&self) -> Vec<String> {
        vec!["two of its nodes are on the CPU".into(), "they take half of the time".into()]
    }
}

fn f32_port(name: &str, shape: &[usize]) -> Port {
    let shape = Some(shape.iter().map(|&d| Some(d)).collect());
    Port { name: name.to_owned(), dtype: Some("f32".to_owned()), shape }
}

/// A folder with a description of dtype `dtype`, and orders that fit it.
fn fitting(dtype: &str) -> (tempfile::TempDir, Orders) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.yml");
    let text = format!(
        "schema: 1\nname: scripted\nfile: scripted.onnx\n\
         input: {{name: in, width_px: 8, height_px: 4, layout: nchw, dtype: {dtype}, colour: rgb}}\n\
         letterbox: {{anchor: centre, pad: 0}}\nhead: {{kind: yolov5, output: out, strides_px: [8]}}\nlabels: [thing]\n"
    );
    std::fs::write(&model, text).unwrap();
    // an empty graph and an empty list of opsets: the least that passes for a whole file
    std::fs::write(folder.path().join("scripted.onnx"), [7 << 3 | 2, 0, 8 << 3 | 2, 0]).unwrap();
    let mut input = f32_port("in", &[1, 3, 4, 8]);
    input.dtype = Some(dtype.to_owned());
    let orders = Orders {
        common: DetectorSettings { model: model.into(), ..DetectorSettings::default() },
        inputs: vec![input],
        outputs: vec![f32_port("out", &[1, 1, 6])],
        shape: vec![1, 1, 6],
        ..Orders::default()
    };
    (folder, orders)
}

fn scored(orders: &Orders, score: f32) -> Orders {
    let common = DetectorSettings { score: Some(score), ..orders.common.clone() };
    Orders { common, ..orders.clone() }
}

fn tensor(dtype: TensorDtype) -> TensorDesc {
    TensorDesc {
        shape: [1, 3, 4, 8],
        dtype,
        layout: TensorLayout::Nchw,
        source_from_model: Letterbox { scale_x: 10.0, scale_y: 10.0, offset_x: 0.0, offset_y: -5.0 },
        source_size: Size::new(80, 30),
    }
}

fn item(payload: Payload) -> Item {
    let timing = Timing { pts_ns: 77, timebase: Timebase::NANOSECONDS, capture_ns: 99, ..Timing::default() };
    Item::on_host("gate", 5, timing, payload)
}

/// 96 elements of `first` with four bytes of room in front and behind.
fn elements(first: f32) -> Vec<f32> {
    vec![first; 98]
}

#[test]
fn detections_carry_the_identity_of_the_frame() {
    let (_folder, orders) = fitting("f32");
    let mut detector = Detector::<Scripted>::open(&orders, 1).unwrap();
    let data = elements(0.75);
    let bytes: &[u8] = bytemuck::cast_slice(&data);
    let found = detector.detect(&item(Payload::Tensor(tensor(TensorDtype::F32))), bytes).unwrap();
    let box_ = DetBox {
        x1: 20.0,
        y1: 5.0,
        x2: 60.0,
        y2: 25.0,
        score: 0.75,
        class_id: 0,
        label: "thing".into(),
        ..DetBox::default()
    };
    let expected = Detections {
        schema: Detections::SCHEMA,
        source: "gate".into(),
        seq: 5,
        pts_ns: 77,
        boxes: vec![box_],
        classes: Vec::new(),
        about: "two of its nodes are on the CPU; they take half of the time".into(),
        capture_ns: 99,
        arrival_ns: 0,
        sender_ns: None,
        model: "scripted".into(),
        width_px: 80,
        height_px: 30,
    };
    assert_eq!((found.detections, found.not_finite, found.over_limit), (expected, 0, 0));
}

#[test]
fn bytes_pass_as_bytes() {
    let (_folder, orders) = fitting("u8");
    let mut detector = Detector::<Scripted>::open(&orders, 1).unwrap();
    let found = detector.detect(&item(Payload::Tensor(tensor(TensorDtype::U8))), &[255; 96]).unwrap();
    assert_eq!(found.detections.boxes.len(), 1);
}

#[test]
fn settings_replace_the_thresholds() {
    let (_folder, orders) = fitting("f32");
    let mut detector = Detector::<Scripted>::open(&scored(&orders, 0.8), 1).unwrap();
    let data = elements(0.75);
    let bytes: &[u8] = bytemuck::cast_slice(&data);
    let found = detector.detect(&item(Payload::Tensor(tensor(TensorDtype::F32))), bytes).unwrap();
    assert!(found.detections.boxes.is_empty());
    for bad in [-0.1, 1.5, f32::NAN] {
        let text = Detector::<Scripted>::open(&scored(&orders, bad), 1).unwrap_err().to_string();
        assert_eq!(text, format!("SCORE is {bad}; expected a number from 0 to 1"));
    }
}

/// The error of opening with the orders changed by `change`, without the folder.
fn refusal(dtype: &str, change: impl FnOnce(&mut Orders)) -> String {
    let (folder, mut orders) = fitting(dtype);
    change(&mut orders);
    let text = Detector::<Scripted>::open(&orders, 1).unwrap_err().to_string();
    text.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_model_that_does_not_fit_its_description_is_refused() {
    let shape = |axes: &[Option<usize>]| Some(axes.to_vec());
    assert_eq!(
        refusal("f32", |o| o.inputs[0].name = "pixels".into()),
        "model.yml: the model file does not fit: it has no input 'in'; it has 'pixels'"
    );
    assert_eq!(
        refusal("f32", |o| o.inputs[0].shape = shape(&[Some(1), Some(3), Some(8), None])),
        "model.yml: the model file does not fit: its input 'in' has shape [1, 3, 8, ?], 'input' of the description \
         says [1, 3, 4, 8] (nchw, 8x4)"
    );
    assert!(refusal("f32", |o| o.inputs[0].shape = shape(&[Some(1), Some(96)])).contains("has shape [1, 96]"));
    assert!(refusal("u8", |o| o.inputs[0].dtype = Some("f32".into())).contains("its input 'in' is f32, 'input' of"));
    assert!(refusal("f16", |_| ()).contains("f16, which the CPU engines do not take"));
    assert!(refusal("f32", |o| o.inputs.push(f32_port("size", &[1]))).contains("it takes 'in', 'size'; a detector"));
    assert!(refusal("f32", |o| o.outputs[0].name = "scores".into()).contains("no output 'out', which 'head' reads"));
    assert!(
        refusal("f32", |o| o.outputs[0].dtype = Some("i64".into()))
            .contains("output 'out' is i64, which is not read here")
    );
    assert!(
        refusal("f32", |o| o.outputs[0].shape = shape(&[Some(1), None, Some(85)]))
            .contains("[1, ?, 85]; head 'yolov5'")
    );
}

#[test]
fn what_only_a_run_shows_is_found_at_open() {
    // nothing declared, and the run gives another shape
    let undeclared = |o: &mut Orders| {
        o.outputs[0].shape = None;
        o.inputs[0].shape = None;
        o.shape = vec![6];
    };
    let text = refusal("f32", undeclared);
    assert!(text.contains("has shape [6]; head 'yolov5' with 1 label at 8x4 expects [1, ?, 6]"), "{text}");
    let text = refusal("f32", |o| o.fail_from_run = Some(0));
    assert_eq!(text, "inference failed: scripted panicked: as scripted");
}

#[test]
fn an_item_that_is_not_the_models_input_is_a_fault_of_the_graph() {
    let (_folder, orders) = fitting("f32");
    let mut detector = Detector::<Scripted>::open(&orders, 1).unwrap();
    let data = elements(0.75);
    let bytes: &[u8] = bytemuck::cast_slice(&data);
    let mut refuse = |item: &Item| {
        let error = detector.detect(item, bytes).unwrap_err();
        assert!(!error.is_of_one_frame(), "{error}");
        error.to_string()
    };
    let packet = Payload::Packet(PacketDesc {
        codec: PacketCodec::H264,
        key: true,
        len_bytes: 4,
        display: Size::new(8, 4),
        orientation: Orientation::Upright,
    });
    let text = refuse(&item(packet));
    assert!(text.contains("takes f32 nchw [1, 3, 4, 8], but a frame of 'gate' came as packet"), "{text}");
    for other in [
        TensorDesc { shape: [1, 3, 8, 8], ..tensor(TensorDtype::F32) },
        TensorDesc { layout: TensorLayout::Nhwc, ..tensor(TensorDtype::F32) },
        tensor(TensorDtype::U8),
    ] {
        assert!(refuse(&item(Payload::Tensor(other))).ends_with("give the converter the same MODEL"));
    }
    let mut far = item(Payload::Tensor(tensor(TensorDtype::F32)));
    far.device = Device::Cuda(1);
    let text = refuse(&far);
    assert!(
        text.contains("takes a tensor in host memory, but a frame of 'gate' came as a tensor on the GPU 1"),
        "{text}"
    );
    assert!(text.ends_with("give its producer MEMORY=host"), "{text}");
}

#[test]
fn a_frame_that_fails_does_not_end_the_node() {
    let (_folder, orders) = fitting("f32");
    let good = item(Payload::Tensor(tensor(TensorDtype::F32)));
    let data = elements(0.75);
    let bytes: &[u8] = bytemuck::cast_slice(&data);

    let mut detector = Detector::<Scripted>::open(&Orders { fail_from_run: Some(1), ..orders.clone() }, 1).unwrap();
    let error = detector.detect(&good, bytes).unwrap_err();
    assert!(error.is_of_one_frame() && error.to_string().contains("panicked: as scripted"), "{error}");

    let mut detector = Detector::<Scripted>::open(&orders, 1).unwrap();
    for (bytes, say) in [(&bytes[..380], "a tensor of 384 bytes in a slot of 380"), (&bytes[1..390], "multiple of 4")] {
        let error = detector.detect(&good, bytes).unwrap_err();
        assert!(error.is_of_one_frame() && error.to_string().contains(say), "{error}");
    }
    // scores that are no probabilities
    let error = detector.detect(&good, bytemuck::cast_slice(&elements(7.0))).unwrap_err();
    assert!(error.is_of_one_frame() && error.to_string().contains("the score 7"), "{error}");

    let mut detector = Detector::<Scripted>::open(&Orders { nan: true, ..orders }, 1).unwrap();
    let found = detector.detect(&good, bytes).unwrap();
    assert!(found.detections.boxes.is_empty() && found.not_finite == 1);
}

#[test]
fn boxes_that_cannot_be_are_counted_and_said_once() {
    let (_folder, orders) = fitting("f32");
    let good = item(Payload::Tensor(tensor(TensorDtype::F32)));
    let data = elements(0.75);
    let mut detector = Detector::<Scripted>::open(&Orders { nan: true, ..orders.clone() }, 1).unwrap();
    let mut said = Vec::new();
    for n in 0..20 {
        let doubt = detector.detect(&good, bytemuck::cast_slice(&data)).unwrap().doubt;
        said.extend(doubt.map(|text| (n, text)));
    }
    // five boxes are no chance, and the one of the run on zeros is none of them
    let [(4, text)] = &said[..] else { panic!("{said:?}") };
    assert!(text.starts_with(&format!("{}: the boxes are most likely wrong", orders.common.model.display())), "{text}");
    assert!(text.contains("5 of 5 boxes are NaN or infinite"), "{text}");

    let mut detector = Detector::<Scripted>::open(&orders, 1).unwrap();
    let found = detector.detect(&good, bytemuck::cast_slice(&data)).unwrap();
    assert_eq!((found.candidates, found.impossible, found.doubt), (1, 0, None));
}

#[test]
fn outputs_that_do_not_fit_name_the_heads_that_would() {
    let text = refusal("f32", |o| o.outputs = vec![f32_port("out", &[1, 300, 6])]);
    assert!(text.contains("By its outputs it may be `head: {kind: end2end, output: out}`"), "{text}");
}
