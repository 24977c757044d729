//! Whether a model file, its description and an engine go together.

use crate::Engine;
use millrace_detect::heads::{Seen, guesses, shape_text};
use millrace_detect::{Model, Port, Signature};
use millrace_frame::Size;

fn names(ports: &[Port]) -> String {
    ports.iter().map(|p| format!("'{}'", p.name)).collect::<Vec<_>>().join(", ")
}

/// Why the model file does not fit its description, or the engine, if it does not.
pub(crate) fn misfit<E: Engine>(model: &Model, signature: &Signature, engine: &E) -> Option<String> {
    let spec = &model.input;
    let Some(input) = signature.inputs.iter().find(|p| p.name == spec.name) else {
        return Some(format!("it has no input '{}'; it has {}", spec.name, names(&signature.inputs)));
    };
    if let Some(why) = other_inputs(model, signature) {
        return Some(why);
    }
    let want: Vec<usize> = spec.shape().iter().map(|&d| d as usize).collect();
    if let Some(shape) = &input.shape {
        let open = |(found, want): (&Option<usize>, &usize)| found.is_none_or(|found| found == *want);
        if shape.len() != 4 || !shape.iter().zip(&want).all(open) {
            return Some(format!(
                "its input '{}' has shape {}, 'input' of the description says {want:?} ({}, {}x{})",
                spec.name,
                shape_text(shape),
                spec.layout,
                spec.width_px,
                spec.height_px
            ));
        }
    }
    if let Some(dtype) = input.dtype.as_ref().filter(|d| *d != spec.dtype.as_str()) {
        return Some(format!("its input '{}' is {dtype}, 'input' of the description says {}", spec.name, spec.dtype));
    }
    if !engine.takes(spec.dtype) {
        return Some(format!(
            "its input is {}, which the CPU engines do not take; export it with an f32 or u8 input, or compute it on a GPU",
            spec.dtype
        ));
    }
    let fixed = input.shape.as_ref().is_some_and(|shape| shape[0].is_some());
    if engine.batch() > 1 && fixed {
        let most = engine.batch();
        return Some(format!(
            "its input '{}' is for 1 frame at a time, and BATCH is {most}: export it with an open batch axis, or leave BATCH out",
            spec.name
        ));
    }
    for name in model.head.outputs() {
        let Some(output) = signature.outputs.iter().find(|p| p.name == name) else {
            return Some(format!(
                "it has no output '{name}', which 'head' reads; it has {}",
                names(&signature.outputs)
            ));
        };
        if let Some(dtype) = output.dtype.as_ref().filter(|d| !engine.reads(d)) {
            return Some(format!("its output '{name}' is {dtype}, which is not read here; export it as f32"));
        }
    }
    None
}

/// Why the inputs beside the picture's cannot be fed, if they cannot: a head may know one more.
fn other_inputs(model: &Model, signature: &Signature) -> Option<String> {
    let others: Vec<&Port> = signature.inputs.iter().filter(|port| port.name != model.input.name).collect();
    let all = names(&signature.inputs);
    match (model.head.size_input(), &others[..]) {
        (None, []) => None,
        (None, [..]) => Some(format!(
            "it takes {all}; a detector takes one tensor, so export it with that input only (head 'dfine' feeds 'orig_target_sizes')"
        )),
        (Some(sizes), [port]) if port.name == sizes => {
            let dtype = port.dtype.as_deref().unwrap_or("i64");
            let fits = port.shape.as_ref().is_none_or(|shape| {
                shape.len() == 2
                    && shape.iter().zip([1, 2]).all(|(found, want)| found.is_none_or(|found| found == want))
            });
            (!fits || !["i32", "i64"].contains(&dtype)).then(|| {
                let shape = port.shape.as_deref().map_or(String::new(), shape_text);
                format!("its input '{sizes}' is {dtype} {shape}; head '{}' feeds i64 [1, 2]", model.head.kind())
            })
        }
        (Some(sizes), _) => {
            Some(format!("it takes {all}; head '{}' feeds '{}' and '{sizes}'", model.head.kind(), model.input.name))
        }
    }
}

/// What the outputs look like, for a description that they do not fit.
pub(crate) fn hint(signature: &Signature, model: &Model) -> String {
    let guesses = guesses(&Seen::shapes(&signature.outputs, Size::new(model.input.width_px, model.input.height_px)));
    let heads: Vec<String> = guesses.into_iter().map(|guess| format!("`head: {}`", guess.head)).collect();
    if heads.is_empty() { String::new() } else { format!(". By its outputs it may be {}", heads.join(" or ")) }
}
