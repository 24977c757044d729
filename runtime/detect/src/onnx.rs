//! Whether a file is a whole ONNX model, by its outermost frame. Engines differ in what they forgive: one reads a file
//! that was cut short without a word, and leaves out what was behind the cut.

use crate::{EngineError, contained};
use millrace_detect::{Port, Signature};
use rten_onnx::onnx::{DataType, ModelProto, NodeProto, ValueInfoProto};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// `ModelProto.graph` and `ModelProto.opset_import` of onnx.proto; both are required.
const GRAPH: u64 = 7;
const OPSETS: u64 = 8;

/// What a model file says of itself.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Its inputs and outputs.
    pub signature: Signature,
    /// What its exporter wrote beside the network, as Ultralytics writes the names of the classes.
    pub metadata: BTreeMap<String, String>,
    /// How many of its nodes convolve integers of 8 bits with a zero point and padding around the picture.
    pub padded_integer_convolutions: usize,
}

/// Reads what the model file at `path` says of itself, whatever engine computes it.
///
/// # Errors
/// [`EngineError::Load`] for a file that is no whole model.
pub fn declared(path: &Path) -> Result<Declared, EngineError> {
    check_whole(path)?;
    let broken = |e: String| EngineError::load(path, e);
    let file = File::open(path).map_err(|e| broken(e.to_string()))?;
    let model = contained("the reader of ONNX", || ModelProto::parse_file(file)).map_err(broken)?;
    let model = model.map_err(|e| broken(format!("{e:?}")))?;
    let graph = model.graph.ok_or_else(|| broken("it holds no graph".to_owned()))?;
    // older exporters list weights among the inputs
    let weights: Vec<&str> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    let is_input = |value: &&ValueInfoProto| !weights.contains(&value.name.as_deref().unwrap_or_default());
    let inputs = graph.input.iter().filter(is_input).map(port).collect();
    let signature = Signature { inputs, outputs: graph.output.iter().map(port).collect() };
    let pairs = model.metadata_props.into_iter().filter_map(|pair| Some((pair.key?, pair.value?)));
    let padded_integer_convolutions = graph.node.iter().filter(|node| pads_integers(node)).count();
    Ok(Declared { signature, metadata: pairs.collect(), padded_integer_convolutions })
}

fn pads_integers(node: &NodeProto) -> bool {
    let zero_point = node.input.get(2).is_some_and(|name| !name.is_empty());
    let pads = node.attribute.iter().any(|attribute| match attribute.name.as_deref() {
        Some("pads") => attribute.ints.iter().any(|&n| n != 0),
        Some("auto_pad") => attribute.s.as_deref().is_some_and(|word| word.starts_with("SAME")),
        _ => false,
    });
    node.op_type.as_deref() == Some("ConvInteger") && zero_point && pads
}

/// What people name in place of an ONNX file, by its first bytes, and what to do.
fn stranger(first: &[u8]) -> Option<&'static str> {
    const PYTORCH: &str = "it is a file of PyTorch (.pt, .pth), which only Python reads: export it to ONNX";
    let known: [(usize, &[u8], &str); 10] = [
        (
            0,
            b"version https://git-lfs",
            "it is a pointer of Git LFS in place of the file: `git lfs pull` fetches the file",
        ),
        (0, b"PK\x03\x04", "it is a ZIP archive, as PyTorch writes (.pt, .pth): unpack it, or export it to ONNX"),
        (0, b"\x80\x02", PYTORCH),
        (4, b"TFL3", "it is a model of TensorFlow Lite: convert it to ONNX (tf2onnx)"),
        (0, b"\x89HDF", "it is an HDF5 file, as Keras writes: convert it to ONNX (tf2onnx)"),
        (
            0,
            b"ftrt",
            "it is an engine of TensorRT, which fits one GPU and version alone: name the .onnx that it was built from",
        ),
        (
            0,
            b"ptrt",
            "it is an engine of TensorRT, which fits one GPU and version alone: name the .onnx that it was built from",
        ),
        (8, b"{\"", "it is a safetensors file, which holds weights and no network: export the model to ONNX"),
        (0, b"<?xml", "it is XML, as a model of OpenVINO has: name the .onnx that it was converted from"),
        (0, b"<", "it is a web page in place of the file: download the file itself"),
    ];
    let is = |(at, magic, _): &&(usize, &[u8], &str)| first.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    known.iter().find(is).map(|(.., why)| *why)
}

fn port(value: &ValueInfoProto) -> Port {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dtype = tensor.and_then(|tensor| tensor.elem_type).map(|dtype| match dtype {
        DataType::FLOAT => "f32".to_owned(),
        DataType::FLOAT16 => "f16".to_owned(),
        DataType::UINT8 => "u8".to_owned(),
        DataType::INT32 => "i32".to_owned(),
        DataType::INT64 => "i64".to_owned(),
        other => other.to_string().to_lowercase(),
    });
    let shape = tensor
        .and_then(|tensor| tensor.shape.as_ref())
        .map(|shape| shape.dim.iter().map(|axis| axis.dim_value.and_then(|n| usize::try_from(n).ok())).collect());
    Port { name: value.name.clone().unwrap_or_default(), dtype, shape }
}

/// Checks that the fields of the outermost message cover the file exactly and that it has a graph and its opsets.
///
/// # Errors
/// [`EngineError::Load`] with the byte at which it ceases to be a model.
pub(crate) fn check_whole(path: &Path) -> Result<(), EngineError> {
    let broken = |text: String| EngineError::load(path, text);
    let file = File::open(path).map_err(|e| broken(e.to_string()))?;
    let length = file.metadata().map_err(|e| broken(e.to_string()))?.len();
    let mut first = Vec::new();
    let begins = File::open(path).and_then(|file| file.take(64).read_to_end(&mut first));
    begins.map_err(|e| broken(e.to_string()))?;
    if let Some(why) = stranger(&first) {
        return Err(EngineError::Stranger { file: path.display().to_string(), why: why.to_owned() });
    }
    let mut reader = Fields { from: BufReader::new(file), at: 0 };
    let (mut graph, mut opsets) = (false, false);
    while reader.at < length {
        let begun = reader.at;
        let not_onnx = || broken(format!("at byte {begun} stands nothing that an ONNX file can hold"));
        let tag = reader.varint().ok_or_else(not_onnx)?;
        let size = match tag & 7 {
            0 => reader.varint().map(|_| 0),
            1 => Some(8),
            2 => reader.varint(),
            5 => Some(4),
            _ => None,
        };
        let size = size.ok_or_else(not_onnx)?;
        let left = length.saturating_sub(reader.at);
        if size > left {
            return Err(broken(format!("it is cut short: at byte {begun} begin {size} bytes, and {left} are left")));
        }
        reader.skip(size).ok_or_else(not_onnx)?;
        graph |= tag >> 3 == GRAPH;
        opsets |= tag >> 3 == OPSETS;
    }
    match (graph, opsets) {
        (true, true) => Ok(()),
        (false, _) => Err(broken("it holds no graph".to_owned())),
        (true, false) => Err(broken("it does not say which opset it uses; it may be cut short".to_owned())),
    }
}

struct Fields {
    from: BufReader<File>,
    at: u64,
}

impl Fields {
    /// The next number of protobuf's base-128 form.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.from.read_exact(&mut byte).ok()?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.at += bytes;
        self.from.seek_relative(i64::try_from(bytes).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

    use super::*;

    #[test]
    fn a_file_says_what_goes_in_and_out() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let of = |name: &str| declared(&data.join(name)).unwrap().signature;
        let port = |name: &str, dtype: &str, shape: &[Option<usize>]| Port {
            name: name.to_owned(),
            dtype: Some(dtype.to_owned()),
            shape: Some(shape.to_vec()),
        };
        let [one, three, six] = [1, 3, 6].map(Some);
        assert_eq!(of("tiny_u8_nhwc.onnx").inputs, [port("images", "u8", &[one, Some(16), Some(24), three])]);
        assert_eq!(of("tiny_open.onnx").inputs, [port("images", "f32", &[None, three, None, None])]);
        let two = of("tiny_two.onnx");
        assert_eq!(two.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["images", "gain"]);
        assert_eq!(two.outputs, [port("detections", "f32", &[one, six, Some(2), three])]);
        let padded = |name: &str| declared(&data.join(name)).unwrap().padded_integer_convolutions;
        assert_eq!((padded("tiny_int8.onnx"), padded("tiny.onnx")), (1, 0));
    }

    #[test]
    fn only_the_whole_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx")).unwrap();
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            check_whole(&path)
        };
        assert_eq!(check(&whole), Ok(()));
        for cut in 0..whole.len() {
            assert!(check(&whole[..cut]).is_err(), "{cut}");
        }
        let text = |bytes: &[u8]| check(bytes).unwrap_err().to_string();
        assert!(text(&whole[..whole.len() - 20]).contains("it is cut short: at byte"));
        assert!(text(b"this is a text\n").contains("at byte 0 stands nothing that an ONNX file can hold"));
        for (first, said) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"[..], "git lfs pull"),
            (b"PK\x03\x04\x14\0\0\x08", "PyTorch"),
            (b"\x80\x02\x8a\nl\xfc", "PyTorch"),
            (b"\x1c\0\0\0TFL3\x14", "TensorFlow Lite"),
            (b"\x89HDF\r\n", "Keras"),
            (b"ftrt\0\0", "TensorRT"),
            (b"\x10\x02\0\0\0\0\0\0{\"a\":", "safetensors"),
            (b"<?xml version=\"1.0\"?>", "OpenVINO"),
            (b"<!DOCTYPE html>", "web page"),
        ] {
            let text = text(first);
            assert!(text.contains(said) && text.contains("m.onnx"), "{text}");
        }
        assert!(text(&[0xff; 40]).contains("at byte 0"));
        // a field of 2^63 bytes
        assert!(text(&[0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]).contains("cut short"));
    }
}
