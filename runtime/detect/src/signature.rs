//! What a model file declares of itself.

/// An input or output as the model file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type of its elements as Rust writes it (`f32`, `u8`, `i64`); `None` where the file does not say.
    pub dtype: Option<String>,
    /// Extent of its axes, `None` for those that the file leaves open; `None` for all where it does not say.
    pub shape: Option<Vec<Option<usize>>>,
}

/// What a model file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Its inputs, without those that it has a value for.
    pub inputs: Vec<Port>,
    /// Its outputs.
    pub outputs: Vec<Port>,
}

impl Port {
    /// The extents of a port of so many axes, 0 for an axis that is open.
    pub(crate) fn extents<const N: usize>(&self) -> Option<[usize; N]> {
        let shape = self.shape.as_ref()?;
        let known: Vec<usize> = shape.iter().map(|axis| axis.unwrap_or(0)).collect();
        known.try_into().ok()
    }
}
