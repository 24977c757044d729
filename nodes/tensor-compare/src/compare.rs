//! Two tensors, element by element.

use half::f16;
use millrace_ab::model::TensorPair;
use millrace_frame::{TensorDesc, TensorDtype};

/// Why two tensors cannot be compared.
pub(crate) fn misfit(a: &TensorDesc, b: &TensorDesc) -> Option<String> {
    if a.layout != b.layout {
        return Some(format!("the layout of 'a' is {}, that of 'b' {}", a.layout, b.layout));
    }
    (a.shape != b.shape).then(|| format!("the shape of 'a' is {:?}, that of 'b' {:?}", a.shape, b.shape))
}

/// The differences of all elements, as values: a u8 of 7 and an f32 of 7.0 are the same.
///
/// A NaN is never the same as anything, and its difference counts as infinite.
pub(crate) fn compare(a: (&TensorDesc, &[u8]), b: (&TensorDesc, &[u8]), pair: &mut TensorPair) {
    match a.0.dtype {
        TensorDtype::F32 => with(read_f32(whole(a)), b, pair),
        TensorDtype::F16 => with(read_f16(whole(a)), b, pair),
        TensorDtype::U8 => with(read_u8(whole(a)), b, pair),
    }
}

fn whole<'a>((tensor, bytes): (&TensorDesc, &'a [u8])) -> &'a [u8] {
    &bytes[..tensor.bytes() as usize]
}

fn with(a: impl Iterator<Item = f64>, b: (&TensorDesc, &[u8]), pair: &mut TensorPair) {
    match b.0.dtype {
        TensorDtype::F32 => sum(a, read_f32(whole(b)), pair),
        TensorDtype::F16 => sum(a, read_f16(whole(b)), pair),
        TensorDtype::U8 => sum(a, read_u8(whole(b)), pair),
    }
}

fn read_f32(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks().0.iter().map(|four| f64::from(f32::from_le_bytes(*four)))
}

fn read_f16(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks().0.iter().map(|two| f16::from_le_bytes(*two).to_f64())
}

fn read_u8(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.iter().map(|byte| f64::from(*byte))
}

fn sum(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>, pair: &mut TensorPair) {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for (a, b) in a.zip(b) {
        pair.elements += 1;
        least = least.min(a);
        greatest = greatest.max(a);
        if a != b {
            pair.differing += 1;
            let difference = (a - b).abs();
            // JSON knows no infinity: what is not a number differs by as much as can be said
            let difference = if difference.is_finite() { difference } else { f64::from(f32::MAX) };
            pair.sum_squared += difference * difference;
            pair.largest = pair.largest.max(difference);
        }
    }
    let said = |v: f64| v.clamp(f64::from(f32::MIN), f64::from(f32::MAX));
    pair.range_a = if pair.elements == 0 { [0.0; 2] } else { [said(least), said(greatest)] };
}
