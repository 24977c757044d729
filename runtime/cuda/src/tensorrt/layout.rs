//! Where TensorRT's classes keep what Millrace calls.
//!
//! Its C++ interfaces are thin: each holds a pointer to an object of the library, whose virtual functions do the work,
//! and a virtual function is known by its place in the class's table. Releases of a major version add to the end of the
//! tables, a new major version moves what is there: one [`Layout`] for each. docs/adr/0013-tensorrt-binding.md says from
//! which releases these numbers were read, how, and what was seen to work.

/// Places in the tables of virtual functions, by class; a class's own destructors take the first two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Whether `ILogger` begins as every versioned interface does, or with `log`.
    pub(crate) versioned_logger: bool,
    /// Whether extents have 64 bits. Where they have 32, `setDimensions` of a profile has them by value.
    pub(crate) wide_dims: bool,
    /// The flags of `createNetworkV2`: all types are the model's, or where that is not offered, the batch is an axis.
    pub(crate) network_flags: u32,
    /// Whether all types are the model's. Otherwise the builder computes in 32 bits unless a flag lets it choose 16.
    pub(crate) typed_by_model: bool,
    /// The builder's flag that allows 32-bit floats to be multiplied with a mantissa of 10 bits. It is set at first.
    pub(crate) tf32: i32,
    pub(crate) builder: Builder,
    pub(crate) config: Config,
    /// Where implementations of layers come from, by name, with the number of their bit.
    pub(crate) tactics: &'static [(&'static str, u32)],
    pub(crate) timing_cache: TimingCache,
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

/// Declares the tables: a class, and of its functions those that are called; behind `;` those that some releases lack.
macro_rules! tables {
    ($($(#[$meta:meta])* $class:ident { $($function:ident),* $(; $($lacking:ident),*)? })*) => {
        $($(#[$meta])* #[derive(Clone, Copy, Debug)] pub(crate) struct $class {
            $(pub(crate) $function: usize,)*
            $($(pub(crate) $lacking: Option<usize>,)*)?
        })*
    };
}

tables! {
    /// `IBuilder`.
    Builder { create_config, create_network, create_profile, build }
    /// `IBuilderConfig`.
    Config {
        add_profile, clear_flag, set_flag, set_tactic_sources, create_timing_cache, set_timing_cache, timing_cache;
        set_level, set_progress_monitor
    }
    /// `ITimingCache`.
    TimingCache { serialize }
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
    ParserError { text, node; node_name, operator }
    /// `IRuntime`.
    Runtime { deserialize }
    /// `ICudaEngine`.
    Engine { create_context, shape, dtype, io_mode, tensors, tensor_name; create_context_without_memory, memory_bytes }
    /// `IExecutionContext`.
    Context { set_profile, set_input_shape, shape, set_address, enqueue; set_memory }
}

/// TensorRT 8.6.
pub(crate) static V8_6: Layout = Layout {
    versioned_logger: false,
    wide_dims: false,
    network_flags: 1,
    typed_by_model: false,
    tf32: 7,
    builder: Builder { create_config: 9, create_network: 11, create_profile: 12, build: 17 },
    config: Config {
        add_profile: 29,
        clear_flag: 14,
        set_flag: 15,
        set_tactic_sources: 42,
        create_timing_cache: 44,
        set_timing_cache: 45,
        timing_cache: 46,
        set_level: Some(51),
        set_progress_monitor: None,
    },
    tactics: &[("cublas", 0), ("cublas_lt", 1), ("cudnn", 2), ("edge_mask_convolutions", 3), ("jit_convolutions", 4)],
    timing_cache: TimingCache { serialize: 2 },
    network: Network { inputs: 19, input: 20, outputs: 21, output: 22 },
    tensor: Tensor { name: 3, dims: 5, dtype: 7 },
    profile: Profile { set_dims: 2 },
    host_memory: HostMemory { data: 2, size: 3 },
    parser: Parser { parse: 0, errors: 6, error: 7, delete: 10 },
    parser_error: ParserError { text: 1, node: 5, node_name: None, operator: None },
    runtime: Runtime { deserialize: 2 },
    engine: Engine {
        create_context: 11,
        shape: 34,
        dtype: 35,
        io_mode: 38,
        tensors: 45,
        tensor_name: 46,
        create_context_without_memory: Some(13),
        memory_bytes: Some(14),
    },
    context: Context {
        set_profile: 25,
        set_input_shape: 29,
        shape: 30,
        set_address: 32,
        enqueue: 44,
        set_memory: Some(11),
    },
};

/// TensorRT 8.5, whose builder has no optimization level.
pub(crate) static V8_5: Layout = Layout { config: Config { set_level: None, ..V8_6.config }, ..V8_6 };

/// TensorRT 10.
pub(crate) static V10: Layout = Layout {
    versioned_logger: false,
    wide_dims: true,
    network_flags: 2,
    typed_by_model: true,
    tf32: 6,
    builder: Builder { create_config: 7, create_network: 8, create_profile: 9, build: 14 },
    config: Config {
        add_profile: 25,
        clear_flag: 10,
        set_flag: 11,
        set_tactic_sources: 38,
        create_timing_cache: 40,
        set_timing_cache: 41,
        timing_cache: 42,
        set_level: Some(47),
        set_progress_monitor: Some(56),
    },
    tactics: V8_6.tactics,
    timing_cache: TimingCache { serialize: 2 },
    network: Network { inputs: 14, input: 15, outputs: 16, output: 17 },
    tensor: Tensor { name: 3, dims: 5, dtype: 7 },
    profile: Profile { set_dims: 2 },
    host_memory: HostMemory { data: 2, size: 3 },
    parser: Parser { parse: 0, errors: 5, error: 6, delete: 9 },
    parser_error: ParserError { text: 1, node: 5, node_name: Some(6), operator: Some(7) },
    runtime: Runtime { deserialize: 3 },
    engine: Engine {
        create_context: 5,
        shape: 19,
        dtype: 20,
        io_mode: 23,
        tensors: 30,
        tensor_name: 31,
        create_context_without_memory: None,
        memory_bytes: None,
    },
    context: Context {
        set_profile: 17,
        set_input_shape: 21,
        shape: 22,
        set_address: 24,
        enqueue: 37,
        set_memory: None,
    },
};

/// TensorRT 11, and TensorRT-RTX from 1.5 on.
pub(crate) static V11: Layout = Layout {
    versioned_logger: true,
    wide_dims: true,
    network_flags: 1,
    typed_by_model: true,
    tf32: 6,
    builder: Builder { create_config: 5, create_network: 6, create_profile: 7, build: 11 },
    config: Config {
        add_profile: 23,
        clear_flag: 8,
        set_flag: 9,
        set_tactic_sources: 27,
        create_timing_cache: 29,
        set_timing_cache: 30,
        timing_cache: 31,
        set_level: Some(36),
        set_progress_monitor: Some(45),
    },
    tactics: &[("edge_mask_convolutions", 0), ("jit_convolutions", 1)],
    timing_cache: TimingCache { serialize: 2 },
    network: Network { inputs: 14, input: 15, outputs: 16, output: 17 },
    tensor: Tensor { name: 3, dims: 5, dtype: 6 },
    profile: Profile { set_dims: 2 },
    host_memory: HostMemory { data: 2, size: 3 },
    parser: Parser { parse: 0, errors: 3, error: 4, delete: 7 },
    parser_error: ParserError { text: 1, node: 5, node_name: Some(6), operator: Some(7) },
    runtime: Runtime { deserialize: 3 },
    engine: Engine {
        create_context: 5,
        shape: 15,
        dtype: 16,
        io_mode: 19,
        tensors: 26,
        tensor_name: 27,
        create_context_without_memory: None,
        memory_bytes: None,
    },
    context: Context {
        set_profile: 16,
        set_input_shape: 20,
        shape: 21,
        set_address: 23,
        enqueue: 36,
        set_memory: None,
    },
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
pub(crate) const UNDERSTOOD: &str = "TensorRT 8.5, 8.6, 10.0 to 10.16, 11.0 and 11.1, and TensorRT-RTX 1.5 to 1.7";

impl Version {
    /// The version of a library that answers `number`.
    pub(crate) fn of(number: u32, rtx: bool) -> Self {
        // releases before 10 count in thousands
        let major = if rtx || number >= 10_000 { 10_000 } else { 1_000 };
        Self { major: number / major, minor: number % major / 100, patch: number % 100, rtx }
    }

    /// The layout of this version. A release that moved a function would be called wrongly, which no probe finds for sure:
    /// only minor versions whose headers were compared are understood.
    pub(crate) fn layout(self) -> Option<&'static Layout> {
        match (self.rtx, self.major, self.minor) {
            (false, 8, 5) => Some(&V8_5),
            (false, 8, 6) => Some(&V8_6),
            (false, 10, 0..=16) => Some(&V10),
            (false, 11, 0..=1) | (true, 1, 5..=7) => Some(&V11),
            _ => None,
        }
    }
}
