//! Whether a model file and its description go together, whatever computes it.

use super::Model;
use crate::heads::{Decoder, HeadError, Seen, guesses, shape_text};
use crate::{Port, Signature, onnx};
use millrace_frame::Size;

/// Why a model file does not fit its description.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum Unfit {
    #[error("the model file does not fit: {0}")]
    File(String),
    #[error("{cause}{hint}")]
    Head { cause: HeadError, hint: String },
}

impl Model {
    /// Checks the description against what the model file declares of its inputs and outputs.
    ///
    /// # Errors
    /// [`Unfit`] with what is there and what was expected.
    pub fn fits(&self, declared: &Signature) -> Result<(), Unfit> {
        if let Some(why) = misfit(self, declared) {
            return Err(Unfit::File(why));
        }
        let shape = |name: &str| declared.outputs.iter().find(|port| port.name == name)?.shape.clone();
        let shapes: Option<Vec<_>> = self.head.outputs().into_iter().map(shape).collect();
        let Some(shapes) = shapes else { return Ok(()) };
        Decoder::new(self).check(&shapes).map_err(|cause| Unfit::Head { cause, hint: hint(declared, self) })
    }

    /// Checks the model file itself, without an engine: that it is there and whole, and fits the description.
    ///
    /// # Errors
    /// Sentences that name the file.
    pub fn check_file(&self) -> Result<(), String> {
        let file = self.file().map_err(|e| e.to_string())?;
        let declared = onnx::declared(file).map_err(|e| e.to_string())?;
        self.fits(&declared.signature).map_err(|why| format!("{}: {why}", self.path.display()))
    }
}

fn names(ports: &[Port]) -> String {
    ports.iter().map(|p| format!("'{}'", p.name)).collect::<Vec<_>>().join(", ")
}

fn misfit(model: &Model, signature: &Signature) -> Option<String> {
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
    let missing = |name: &&str| !signature.outputs.iter().any(|port| port.name == *name);
    let name = model.head.outputs().into_iter().find(missing)?;
    Some(format!("it has no output '{name}', which 'head' reads; it has {}", names(&signature.outputs)))
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
fn hint(signature: &Signature, model: &Model) -> String {
    let guesses = guesses(&Seen::shapes(&signature.outputs, Size::new(model.input.width_px, model.input.height_px)));
    let heads: Vec<String> = guesses.into_iter().map(|guess| format!("`head: {}`", guess.head)).collect();
    if heads.is_empty() { String::new() } else { format!(". By its outputs it may be {}", heads.join(" or ")) }
}
