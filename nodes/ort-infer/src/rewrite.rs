//! A model said in another way, for what ONNX Runtime's CUDA provider does not compute.
//!
//! Works on the fields of the file's protobuf messages, so that everything else in it stays as it is, byte by byte. The numbers
//! of the fields are those of onnx.proto.

const MODEL_GRAPH: u64 = 7;
const GRAPH_NODE: u64 = 1;
const GRAPH_INITIALIZER: u64 = 5;
const GRAPH_INPUT: u64 = 11;
const NODE_INPUT: u64 = 1;
const NODE_OUTPUT: u64 = 2;
const NODE_OPERATOR: u64 = 4;
const NODE_ATTRIBUTE: u64 = 5;
const NODE_DOMAIN: u64 = 7;
const TENSOR_DATA_TYPE: u64 = 2;
/// `ValueInfoProto.type`, `TypeProto.tensor_type` and its `elem_type`.
const INPUT_ELEMENT_TYPE: [u64; 3] = [2, 1, 1];
const ATTRIBUTE_NAME: u64 = 1;
const ATTRIBUTE_INT: u64 = 3;
const ATTRIBUTE_TYPE: u64 = 20;
const TYPE_INT: u64 = 2;
const FLOAT: u64 = 1;
const FLOAT16: u64 = 10;

/// A field of a message.
#[derive(Clone, Copy)]
struct Field<'a> {
    number: u64,
    /// With its tag.
    whole: &'a [u8],
    value: Value<'a>,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) if self.number == number => Some(bytes),
            _ => None,
        }
    }

    fn is(&self, number: u64, value: u64) -> bool {
        self.number == number && matches!(self.value, Value::Number(found) if found == value)
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message, in their order.
fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, String> {
    let mut at = 0;
    let mut fields = Vec::new();
    while at < message.len() {
        let begun = at;
        let mut field = || {
            let tag = varint(message, &mut at)?;
            let value = match tag & 7 {
                0 => Value::Number(varint(message, &mut at)?),
                wire @ (1 | 2 | 5) => {
                    let length = match wire {
                        1 => 8,
                        5 => 4,
                        _ => usize::try_from(varint(message, &mut at)?).ok()?,
                    };
                    let bytes = message.get(at..at.checked_add(length)?)?;
                    at += length;
                    if wire == 2 { Value::Bytes(bytes) } else { Value::Other }
                }
                _ => return None,
            };
            Some(Field { number: tag >> 3, whole: &message[begun..at], value })
        };
        fields.push(field().ok_or_else(|| format!("byte {begun} of a message of {} begins no field", message.len()))?);
    }
    Ok(fields)
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_bytes(to: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(to, number << 3 | 2);
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn put_number(to: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(to, number << 3);
    put_varint(to, value);
}

/// A node of these inputs and one output.
fn node(operator: &str, inputs: &[&[u8]], output: &str, attribute: Option<(&str, u64)>) -> Vec<u8> {
    let mut node = Vec::new();
    inputs.iter().for_each(|input| put_bytes(&mut node, NODE_INPUT, input));
    put_bytes(&mut node, NODE_OUTPUT, output.as_bytes());
    put_bytes(&mut node, NODE_OPERATOR, operator.as_bytes());
    if let Some((name, value)) = attribute {
        let mut attribute = Vec::new();
        put_bytes(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
        put_number(&mut attribute, ATTRIBUTE_INT, value);
        put_number(&mut attribute, ATTRIBUTE_TYPE, TYPE_INT);
        put_bytes(&mut node, NODE_ATTRIBUTE, &attribute);
    }
    node
}

/// Whether a graph has weights or an input of 16-bit floats.
fn has_16_bit_floats(graph: &[Field<'_>]) -> Result<bool, String> {
    for field in graph {
        if let Some(tensor) = field.bytes(GRAPH_INITIALIZER)
            && fields(tensor)?.iter().any(|field| field.is(TENSOR_DATA_TYPE, FLOAT16))
        {
            return Ok(true);
        }
        let Some(mut message) = field.bytes(GRAPH_INPUT) else { continue };
        let [value_type, tensor_type, element] = INPUT_ELEMENT_TYPE;
        for number in [value_type, tensor_type] {
            message = fields(message)?.iter().find_map(|field| field.bytes(number)).unwrap_or_default();
        }
        if fields(message)?.iter().any(|field| field.is(element, FLOAT16)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The nodes that take the place of the GridSample node `of`: its inputs turned to 32 bits, itself, and its output turned to what
/// its first input is of. `n` tells it from the graph's others. Nothing for every other node.
fn around(of: &[u8], n: usize) -> Result<Option<[Vec<u8>; 4]>, String> {
    let fields = fields(of)?;
    let all = |number| fields.iter().filter_map(|field| field.bytes(number)).collect::<Vec<_>>();
    let is_onnx = all(NODE_DOMAIN).iter().all(|domain| domain.is_empty() || *domain == b"ai.onnx");
    let (inputs, outputs) = (all(NODE_INPUT), all(NODE_OUTPUT));
    let ([picture, grid], [output], [b"GridSample"], true) =
        (&inputs[..], &outputs[..], &all(NODE_OPERATOR)[..], is_onnx)
    else {
        return Ok(None);
    };
    let [wide_picture, wide_grid, wide_output] =
        ["picture", "grid", "output"].map(|what| format!("millrace/grid_sample_f32/{n}/{what}"));
    let mut wide = Vec::new();
    put_bytes(&mut wide, NODE_INPUT, wide_picture.as_bytes());
    put_bytes(&mut wide, NODE_INPUT, wide_grid.as_bytes());
    put_bytes(&mut wide, NODE_OUTPUT, wide_output.as_bytes());
    let others = fields.iter().filter(|field| ![NODE_INPUT, NODE_OUTPUT].contains(&field.number));
    others.for_each(|field| wide.extend_from_slice(field.whole));
    let output = String::from_utf8_lossy(output);
    Ok(Some([
        node("Cast", &[picture], &wide_picture, Some(("to", FLOAT))),
        node("Cast", &[grid], &wide_grid, Some(("to", FLOAT))),
        wide,
        node("CastLike", &[wide_output.as_bytes(), picture], &output, None),
    ]))
}

/// A model of 16-bit floats with its GridSample nodes in 32 bits, and how many these are; nothing where there are none.
///
/// # Errors
/// The bytes are no protobuf message.
pub(crate) fn grid_sample_in_f32(model: &[u8]) -> Result<Option<(usize, Vec<u8>)>, String> {
    let model_fields = fields(model)?;
    let Some(graph) = model_fields.iter().find_map(|field| field.bytes(MODEL_GRAPH)) else { return Ok(None) };
    let graph_fields = fields(graph)?;
    let (mut rewritten, mut nodes) = (Vec::new(), 0);
    for field in &graph_fields {
        match field.bytes(GRAPH_NODE).map(|node| around(node, nodes)).transpose()?.flatten() {
            Some(in_its_place) => {
                nodes += 1;
                in_its_place.iter().for_each(|node| put_bytes(&mut rewritten, GRAPH_NODE, node));
            }
            None => rewritten.extend_from_slice(field.whole),
        }
    }
    if nodes == 0 || !has_16_bit_floats(&graph_fields)? {
        return Ok(None);
    }
    let mut whole = Vec::with_capacity(model.len() + rewritten.len() - graph.len() + 8);
    for field in &model_fields {
        match field.bytes(MODEL_GRAPH) {
            Some(_) => put_bytes(&mut whole, MODEL_GRAPH, &rewritten),
            None => whole.extend_from_slice(field.whole),
        }
    }
    Ok(Some((nodes, whole)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

    use super::*;
    use std::path::Path;

    fn data(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/infer/tests/data").join(name)).unwrap()
    }

    #[test]
    fn a_model_without_16_bit_grid_sample_stays_as_it_is() {
        for name in ["tiny.onnx", "tiny_f16.onnx", "tiny_dfine.onnx", "tiny_open.onnx"] {
            assert_eq!(grid_sample_in_f32(&data(name)), Ok(None), "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_another_model_and_no_panic() {
        let whole = data("tiny_grid_f16.onnx");
        assert_eq!(grid_sample_in_f32(&whole).unwrap().unwrap().0, 2);
        for cut in 0..whole.len() {
            let _ = grid_sample_in_f32(&whole[..cut]);
            let mut damaged = whole.clone();
            damaged[cut] ^= 0x5a;
            let _ = grid_sample_in_f32(&damaged);
        }
        assert!(grid_sample_in_f32(&whole[..whole.len() / 2]).is_err());
        assert!(grid_sample_in_f32(&[0xff; 40]).unwrap_err().contains("byte 0 of a message of 40 begins no field"));
    }
}
