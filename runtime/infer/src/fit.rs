//! Whether a model file, its description and an engine go together.

use crate::Engine;
use millrace_detect::{Model, Signature};

/// Why the engine cannot compute a model whose file fits its description, if it cannot.
pub(crate) fn misfit<E: Engine>(model: &Model, signature: &Signature, engine: &E) -> Option<String> {
    let spec = &model.input;
    if !engine.takes(spec.dtype) {
        return Some(format!(
            "its input is {}, which the CPU engines do not take; export it with an f32 or u8 input, or compute it on a GPU",
            spec.dtype
        ));
    }
    let input = signature.inputs.iter().find(|port| port.name == spec.name)?;
    let fixed = input.shape.as_ref().is_some_and(|shape| shape[0].is_some());
    if engine.batch() > 1 && fixed {
        let most = engine.batch();
        return Some(format!(
            "its input '{}' is for 1 frame at a time, and BATCH is {most}: export it with an open batch axis, or leave BATCH out",
            spec.name
        ));
    }
    for name in model.head.outputs() {
        let output = signature.outputs.iter().find(|port| port.name == name)?;
        if let Some(dtype) = output.dtype.as_ref().filter(|d| !engine.reads(d)) {
            return Some(format!("its output '{name}' is {dtype}, which is not read here; export it as f32"));
        }
    }
    None
}
