//! Where TensorRT's classes keep what Millrace calls.
//!
//! Its C++ interfaces are thin: each holds a pointer to an object of the library, whose virtual functions do the work,
//! and a virtual function is known by its place in the class's table. Releases of a major version add to the end of the
//! tables, a new major version moves what is there: one [`Layout`] for each. docs/adr/0013-tensorrt-binding.md says from
//! which releases these numbers were read, how, and what was seen to work.

/// Places in the tables of virtual functions, by class; a class's own destructors take the first two.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Whether `ILogger` begins as every versioned interface does, or with `log`.
    pub(crate) versioned_logger: bool,
    /// The flag of `createNetworkV2` by which all types are the model's. It cannot be taken back where it is 1.
    pub(crate) strongly_typed: u32,
    pub(crate) builder: Builder,
    pub(crate) config: Config,
    pub(crate) network: Network,
    pub(crate) tensor: Tensor,
    pub(crate) profile: Profile,
    pub(crate) host_memory: HostMemory,
    pub(crate) parser: Parser,
    pub(crate) parser_error: ParserError,
    pub(crate) runtime: Runtime,
    pub(crate) engine: Engine,
    pub(crate) context: Context,
}

/// Declares the tables: a class, and of its functions those that are called.
macro_rules! tables {
    ($($(#[$meta:meta])* $class:ident { $($function:ident),* $(,)? })*) => {
        $($(#[$meta])* #[derive(Debug)] pub(crate) struct $class { $(pub(crate) $function: usize),* })*
    };
}

tables! {
    /// `IBuilder`.
    Builder { create_config, create_network, create_profile, build }
    /// `IBuilderConfig`.
    Config { add_profile, set_progress_monitor }
    /// `INetworkDefinition`.
    Network { inputs, input, outputs, output }
    /// `ITensor`.
    Tensor { name, dims, dtype }
    /// `IOptimizationProfile`.
    Profile { set_dims }
    /// `IHostMemory`.
    HostMemory { data, size }
    /// `nvonnxparser::IParser`, which is no thin interface: its table is that of the object itself.
    Parser { parse, errors, error, delete }
    /// `nvonnxparser::IParserError`, likewise.
    ParserError { text, node, node_name, operator }
    /// `IRuntime`.
    Runtime { deserialize }
    /// `ICudaEngine`.
    Engine { create_context, shape, dtype, io_mode, tensors, tensor_name }
    /// `IExecutionContext`.
    Context { set_input_shape, shape, set_address, enqueue }
}

/// TensorRT 10.
pub(crate) static V10: Layout = Layout {
    versioned_logger: false,
    strongly_typed: 1 << 1,
    builder: Builder { create_config: 7, create_network: 8, create_profile: 9, build: 14 },
    config: Config { add_profile: 25, set_progress_monitor: 56 },
    network: Network { inputs: 14, input: 15, outputs: 16, output: 17 },
    tensor: Tensor { name: 3, dims: 5, dtype: 7 },
    profile: Profile { set_dims: 2 },
    host_memory: HostMemory { data: 2, size: 3 },
    parser: Parser { parse: 0, errors: 5, error: 6, delete: 9 },
    parser_error: ParserError { text: 1, node: 5, node_name: 6, operator: 7 },
    runtime: Runtime { deserialize: 3 },
    engine: Engine { create_context: 5, shape: 19, dtype: 20, io_mode: 23, tensors: 30, tensor_name: 31 },
    context: Context { set_input_shape: 21, shape: 22, set_address: 24, enqueue: 37 },
};

/// TensorRT 11, and TensorRT-RTX from 1.5 on.
pub(crate) static V11: Layout = Layout {
    versioned_logger: true,
    strongly_typed: 1,
    builder: Builder { create_config: 5, create_network: 6, create_profile: 7, build: 11 },
    config: Config { add_profile: 23, set_progress_monitor: 45 },
    network: Network { inputs: 14, input: 15, outputs: 16, output: 17 },
    tensor: Tensor { name: 3, dims: 5, dtype: 6 },
    profile: Profile { set_dims: 2 },
    host_memory: HostMemory { data: 2, size: 3 },
    parser: Parser { parse: 0, errors: 3, error: 4, delete: 7 },
    parser_error: ParserError { text: 1, node: 5, node_name: 6, operator: 7 },
    runtime: Runtime { deserialize: 3 },
    engine: Engine { create_context: 5, shape: 15, dtype: 16, io_mode: 19, tensors: 26, tensor_name: 27 },
    context: Context { set_input_shape: 20, shape: 21, set_address: 23, enqueue: 36 },
};

/// What `getInferLibVersion` answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Patch level.
    pub patch: u32,
    /// Whether it is TensorRT-RTX, whose numbers are its own.
    pub rtx: bool,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.rtx { "TensorRT-RTX" } else { "TensorRT" };
        write!(f, "{name} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The versions that are understood, for messages.
pub(crate) const UNDERSTOOD: &str = "TensorRT 10 and 11, and TensorRT-RTX 1.5 to 1.7";

impl Version {
    /// The version of a library that answers `number`.
    pub(crate) fn of(number: u32, rtx: bool) -> Self {
        Self { major: number / 10_000, minor: number / 100 % 100, patch: number % 100, rtx }
    }

    /// The layout of this version. TensorRT-RTX has moved functions in a minor version, so only those that were looked
    /// at are understood.
    pub(crate) fn layout(self) -> Option<&'static Layout> {
        match (self.rtx, self.major, self.minor) {
            (false, 10, _) => Some(&V10),
            (false, 11, _) | (true, 1, 5..=7) => Some(&V11),
            _ => None,
        }
    }
}
