//! Whether a model file, its description and an engine go together.

use crate::{Engine, second_input};
use millrace_detect::{Model, Signature, onnx};

/// Why no batch of so many frames can go through the model, if it cannot.
fn one_at_a_time(model: &Model, signature: &Signature, batch: usize) -> Option<String> {
    let name = &model.input.name;
    let input = signature.inputs.iter().find(|port| port.name == *name)?;
    let fixed = input.shape.as_ref().is_some_and(|shape| shape.first().is_some_and(Option::is_some));
    (batch > 1 && fixed).then(|| {
        format!(
            "its input '{name}' is for 1 frame at a time, and BATCH is {batch}: export it with an open batch axis, or leave BATCH \
             out"
        )
    })
}

/// What the model file shows before an engine is there: the setting that it does not go together with, and why.
pub(crate) fn foreseen<E: Engine>(settings: &E::Settings) -> Option<(&'static str, String)> {
    // a description or a file that cannot be read is reported where it is read
    let model = Model::load(&E::common(settings).model).ok()?;
    let file = model.file().ok()?;
    let declared = onnx::declared(file).ok()?;
    let of_file = |why: String| format!("'{}': {why}", file.display());
    if let Some(why) = E::refuses(&declared) {
        return Some(("MODEL", of_file(why)));
    }
    if let Some(name) = model.head.size_input().filter(|_| !E::feeds_sizes(settings)) {
        return Some(("MODEL", of_file(second_input(name).to_string())));
    }
    let why = one_at_a_time(&model, &declared.signature, E::asked_batch(settings) as usize)?;
    Some(("BATCH", of_file(why)))
}

/// Why the engine cannot compute a model whose file fits its description, if it cannot.
pub(crate) fn misfit<E: Engine>(model: &Model, signature: &Signature, engine: &E) -> Option<String> {
    let spec = &model.input;
    if !engine.takes(spec.dtype) {
        return Some(format!(
            "its input is {}, which the CPU engines do not take; export it with an f32 or u8 input, or compute it on a GPU",
            spec.dtype
        ));
    }
    if let Some(why) = one_at_a_time(model, signature, engine.batch()) {
        return Some(why);
    }
    for name in model.head.outputs() {
        let output = signature.outputs.iter().find(|port| port.name == name)?;
        if let Some(dtype) = output.dtype.as_ref().filter(|d| !engine.reads(d)) {
            return Some(format!("its output '{name}' is {dtype}, which is not read here; export it as f32"));
        }
    }
    None
}
