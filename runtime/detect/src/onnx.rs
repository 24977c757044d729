//! What a model file says of itself, read without its weights and without an engine; and whether the file is whole. Engines
//! differ in what they forgive: one reads a file that was cut short without a word, and leaves out what was behind the cut.

use crate::{Port, Signature, open_file};
use rten_onnx::onnx::{DataType, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::catch_unwind;
use std::path::Path;

/// Why a file is no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum FileError {
    #[error("the model file '{file}' cannot be read: {cause}")]
    Open { file: String, cause: String },
    #[error(
        "'{file}' cannot be loaded as an ONNX model: {cause}. Is it whole, and an .onnx? \
         `python3 -c \"import onnx; onnx.checker.check_model('{file}')\"` says more"
    )]
    Load { file: String, cause: String },
    #[error("'{file}' is no ONNX model: {why}")]
    Stranger { file: String, why: String },
    #[error("the weights of '{file}' are in '{weights}', {why}: the exporter wrote both files, so copy both")]
    Weights { file: String, weights: String, why: String },
}

impl FileError {
    /// [`FileError::Load`] of `file`.
    pub fn load(file: &Path, cause: impl std::fmt::Display) -> Self {
        Self::Load { file: file.display().to_string(), cause: cause.to_string() }
    }
}

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

/// Reads what the model file at `path` says of itself, whatever engine computes it. The file is whole, and so are those
/// that have its weights, as far as lengths show it; the weights themselves are not read.
///
/// # Errors
/// [`FileError`] with what is there instead, or the byte at which it ceases to be a model.
pub fn declared(path: &Path) -> Result<Declared, FileError> {
    let broken = |e: String| FileError::load(path, e);
    let without_weights = outline(path)?;
    let model = catch_unwind(|| ModelProto::parse_buf(&without_weights));
    let model = model.map_err(|_| broken("its reader panicked".to_owned()))?.map_err(|e| broken(format!("{e:?}")))?;
    let graph = model.graph.ok_or_else(|| broken("it holds no graph".to_owned()))?;
    weights_are_there(&graph, path)?;
    // older exporters list weights among the inputs
    let weights: Vec<&str> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    let is_input = |value: &&ValueInfoProto| !weights.contains(&value.name.as_deref().unwrap_or_default());
    let inputs = graph.input.iter().filter(is_input).map(port).collect();
    let signature = Signature { inputs, outputs: graph.output.iter().map(port).collect() };
    let pairs = model.metadata_props.into_iter().filter_map(|pair| Some((pair.key?, pair.value?)));
    let padded_integer_convolutions = graph.node.iter().filter(|node| pads_integers(node)).count();
    Ok(Declared { signature, metadata: pairs.collect(), padded_integer_convolutions })
}

/// Large models have their weights in files beside them.
fn weights_are_there(graph: &GraphProto, path: &Path) -> Result<(), FileError> {
    for tensor in &graph.initializer {
        let said = |key: &str| {
            let pair = tensor.external_data.iter().find(|pair| pair.key.as_deref() == Some(key));
            pair.and_then(|pair| pair.value.as_deref())
        };
        let Some(weights) = said("location") else { continue };
        let [from, length] = ["offset", "length"].map(|key| said(key).and_then(|n| n.parse().ok()).unwrap_or(0_u64));
        let why = match std::fs::metadata(path.with_file_name(weights)) {
            Ok(found) if found.len() >= from.saturating_add(length) => continue,
            Ok(found) => format!("which is cut short: it has {} bytes", found.len()),
            Err(error) => format!("which cannot be read: {error}"),
        };
        return Err(FileError::Weights { file: path.display().to_string(), weights: weights.to_owned(), why });
    }
    Ok(())
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
    let known: [(usize, &[u8], &str); 11] = [
        (
            0,
            b"schema:",
            "it is the description of a model: name the .onnx, or let `millrace model check` try the description",
        ),
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

/// A message of onnx.proto.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
}

/// `ModelProto.graph` and `ModelProto.opset_import`; both are required.
const GRAPH: u64 = 7;
const OPSETS: u64 = 8;

impl Message {
    /// The message that a field has, if its parts matter here.
    fn inner(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, GRAPH) => Some(Self::Graph),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Graph, 5) => Some(Self::Tensor),
            (Self::Node, 5) => Some(Self::Attribute),
            _ => None,
        }
    }

    /// Whether [`declared`] reads a field: names, shapes, metadata, and of weights where they are.
    fn keeps(self, field: u64) -> bool {
        let kept: &[u64] = match self {
            Self::Model => &[1, OPSETS, 14],
            Self::Graph => &[11, 12],
            Self::Node => &[1, 4],
            Self::Attribute => &[1, 4, 8],
            Self::Tensor => &[8, 13, 14],
        };
        kept.contains(&field)
    }
}

/// The model without its weights. All fields of the file are looked at, and each ends within the message that it is in.
///
/// # Errors
/// [`FileError`] with the byte at which it ceases to be a model.
fn outline(path: &Path) -> Result<Vec<u8>, FileError> {
    let broken = |text: String| FileError::load(path, text);
    let shown = || path.display().to_string();
    let file = open_file(path).map_err(|cause| FileError::Open { file: shown(), cause })?;
    let length = file.metadata().map_err(|e| broken(e.to_string()))?.len();
    let mut first = Vec::new();
    let begins = File::open(path).and_then(|file| file.take(64).read_to_end(&mut first));
    begins.map_err(|e| broken(e.to_string()))?;
    if let Some(why) = stranger(&first) {
        return Err(FileError::Stranger { file: shown(), why: why.to_owned() });
    }
    let mut reader = Fields { from: BufReader::new(file), at: 0, seen: Vec::new() };
    let mut out = Vec::new();
    reader.copy(length, Message::Model, &mut out).map_err(broken)?;
    match [GRAPH, OPSETS].map(|field| reader.seen.contains(&field)) {
        [true, true] => Ok(out),
        [false, _] => Err(broken("it holds no graph".to_owned())),
        [true, false] => Err(broken("it does not say which opset it uses; it may be cut short".to_owned())),
    }
}

/// Checks that the model file at `path` is whole.
///
/// # Errors
/// As [`declared`].
pub fn check_whole(path: &Path) -> Result<(), FileError> {
    declared(path).map(drop)
}

struct Fields {
    from: BufReader<File>,
    at: u64,
    /// The fields of the outermost message.
    seen: Vec<u64>,
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Fields {
    /// Copies what is kept of a message that ends at `end`.
    fn copy(&mut self, end: u64, message: Message, out: &mut Vec<u8>) -> Result<(), String> {
        while self.at < end {
            let begun = self.at;
            let not_onnx = || format!("at byte {begun} is nothing that an ONNX file can hold");
            let tag = self.varint().ok_or_else(not_onnx)?;
            let (field, kept) = (tag >> 3, message.keeps(tag >> 3));
            if matches!(message, Message::Model) {
                self.seen.push(field);
            }
            let size = match tag & 7 {
                0 => {
                    let value = self.varint().ok_or_else(not_onnx)?;
                    if kept {
                        put_varint(out, tag);
                        put_varint(out, value);
                    }
                    continue;
                }
                1 => 8,
                2 => self.varint().ok_or_else(not_onnx)?,
                5 => 4,
                _ => return Err(not_onnx()),
            };
            let left = end.saturating_sub(self.at);
            if size > left {
                let what = if matches!(message, Message::Model) { "it is cut short" } else { "it is damaged" };
                return Err(format!("{what}: at byte {begun} begin {size} bytes, and {left} are left"));
            }
            if let Some(inner) = message.inner(field).filter(|_| tag & 7 == 2) {
                let mut part = Vec::new();
                self.copy(self.at + size, inner, &mut part)?;
                put_varint(out, tag);
                put_varint(out, part.len() as u64);
                out.extend(part);
            } else if kept {
                put_varint(out, tag);
                if tag & 7 == 2 {
                    put_varint(out, size);
                }
                let copied = self.from.by_ref().take(size).read_to_end(out).map_err(|e| e.to_string())?;
                self.at += copied as u64;
            } else {
                self.skip(size).ok_or_else(not_onnx)?;
            }
        }
        // a number that reaches beyond its message
        if self.at > end {
            Err(format!("it is damaged: what begins before byte {end} ends at {}", self.at))
        } else {
            Ok(())
        }
    }

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
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/data");
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
        let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../infer/tests/data/tiny.onnx")).unwrap();
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
        assert!(text(b"this is a text\n").contains("at byte 0 is nothing that an ONNX file can hold"));
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
            (b"schema: 1\n", "millrace model check"),
        ] {
            let text = text(first);
            assert!(text.contains(said) && text.contains("m.onnx"), "{text}");
        }
        assert!(text(&[0xff; 40]).contains("at byte 0"));
        // a field of 2^63 bytes
        assert!(text(&[0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]).contains("cut short"));
    }

    /// A field with bytes: a tensor, a name.
    fn field(n: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![n << 3 | 2];
        put_varint(&mut out, bytes.len() as u64);
        [out, bytes.to_vec()].concat()
    }

    #[test]
    fn weights_beside_the_model_are_looked_for_and_those_within_it_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let pair = |key: &[u8], value: &[u8]| field(13, &[field(1, key), field(2, value)].concat());
        let tensor = [
            field(8, b"w"),
            pair(b"location", b"m.data"),
            pair(b"offset", b"8"),
            pair(b"length", b"4"),
            vec![14 << 3, 1],
        ];
        let inside = [field(8, b"v"), field(9, &vec![7; 1 << 20])].concat();
        let graph = [field(5, &tensor.concat()), field(5, &inside), field(12, &field(1, b"out"))].concat();
        let model = [field(7, &graph), field(8, &[16, 17])].concat();
        std::fs::write(&path, &model).unwrap();
        assert!(outline(&path).unwrap().len() < 200);
        let text = declared(&path).unwrap_err().to_string();
        assert!(text.contains("'m.data', which cannot be read") && text.contains("copy both"), "{text}");
        std::fs::write(folder.path().join("m.data"), [0; 11]).unwrap();
        assert!(declared(&path).unwrap_err().to_string().contains("which is cut short: it has 11 bytes"));
        std::fs::write(folder.path().join("m.data"), [0; 12]).unwrap();
        assert_eq!(declared(&path).unwrap().signature.outputs[0].name, "out");
        // the outermost lengths are right, one within is not
        let mut wrong = model.clone();
        let at = wrong.windows(6).position(|bytes| bytes == b"m.data").unwrap() - 1;
        wrong[at] = 0x7f;
        std::fs::write(&path, &wrong).unwrap();
        assert!(declared(&path).unwrap_err().to_string().contains("m.onnx"));
    }
}
