// Prints, from TensorRT's own headers, its version and the places of the virtual functions, in the form in which the test
// `places_are_those_of_the_headers` has its table. A pointer to a virtual member function is 1 + the offset in the table.
#include "NvInfer.h"
#include "NvOnnxParser.h"
#include <cstddef>
#include <cstdio>
#include <cstring>

using namespace nvinfer1;

template <class Member> long place(Member member) {
    std::ptrdiff_t words[2];
    static_assert(sizeof words == sizeof member);
    std::memcpy(words, &member, sizeof words);
    return (words[0] - 1) / static_cast<long>(sizeof(void*));
}

// both destructors stand together; the second one also frees
long parser_delete() {
    using nvonnxparser::IParser;
    return place(&IParser::clearErrors) + 2;
}

// TensorRT-RTX counts from 1
#define BEFORE_10 (NV_TENSORRT_MAJOR == 8 || NV_TENSORRT_MAJOR == 9)
#if BEFORE_10
template <class T> using Load = ICudaEngine* (T::*)(void const*, std::size_t, IPluginFactory*) noexcept;
template <class T> using MakeContext = IExecutionContext* (T::*)() noexcept;
template <class T> using SetDims = bool (T::*)(char const*, OptProfileSelector, Dims) noexcept;
static_assert(sizeof(Dims) == 36 && offsetof(Dims, d) == 4);
#else
template <class T> using Load = ICudaEngine* (T::*)(void const*, std::size_t) noexcept;
template <class T> using MakeContext = IExecutionContext* (T::*)(ExecutionContextAllocationStrategy) noexcept;
template <class T> using SetDims = bool (T::*)(char const*, OptProfileSelector, Dims const&) noexcept;
static_assert(sizeof(Dims) == 72 && offsetof(Dims, d) == 8);
static_assert(int(ExecutionContextAllocationStrategy::kSTATIC) == 0);
#endif
static_assert(offsetof(IBuilder, mImpl) == 8 && offsetof(IBuilderConfig, mImpl) == 8 && offsetof(ITensor, mImpl) == 8);
static_assert(offsetof(INetworkDefinition, mImpl) == 8 && offsetof(IOptimizationProfile, mImpl) == 8);
static_assert(offsetof(IHostMemory, mImpl) == 8 && offsetof(IRuntime, mImpl) == 8);
static_assert(offsetof(ICudaEngine, mImpl) == 8 && offsetof(IExecutionContext, mImpl) == 8);
static_assert(offsetof(ITimingCache, mImpl) == 8 && int(TensorIOMode::kINPUT) == 1);
static_assert(int(OptProfileSelector::kMIN) == 0 && int(OptProfileSelector::kOPT) == 1 && int(OptProfileSelector::kMAX) == 2);
static_assert(int(DataType::kFLOAT) == 0 && int(DataType::kHALF) == 1 && int(DataType::kUINT8) == 5);

#define P(class, function) place(&class::function)

// a function that some releases lack
template <class... Function> void print_optional(char const* name, Function... function) {
    std::printf("%s: ", name);
    (std::printf("Some(%ld)", place(function)), ...);
    std::printf(sizeof...(function) == 0 ? "None" : "");
}

int main() {
    using namespace apiv;
    using nvonnxparser::IParser;
    using nvonnxparser::IParserError;
    std::printf("%d %d\n", int(NV_TENSORRT_VERSION), NV_TENSORRT_MAJOR < 8);
    std::printf("Layout { versioned_logger: %s, wide_dims: %s, ", P(ILogger, log) == 0 ? "false" : "true",
        sizeof(Dims::d[0]) == 8 ? "true" : "false");
#if BEFORE_10
    static_assert(int(BuilderFlag::kFP16) == 0);
    std::printf("network_flags: %d, typed_by_model: false, ", 1 << int(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH));
#else
    std::printf("network_flags: %d, typed_by_model: true, ", 1 << int(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED));
#endif
    std::printf("tf32: %d, ", int(BuilderFlag::kTF32));
    std::printf("builder: Builder { create_config: %ld, create_network: %ld, create_profile: %ld, build: %ld }, ",
        P(VBuilder, createBuilderConfig), P(VBuilder, createNetworkV2), P(VBuilder, createOptimizationProfile),
        P(VBuilder, buildSerializedNetwork));
    std::printf("config: Config { add_profile: %ld, clear_flag: %ld, set_flag: %ld, set_tactic_sources: %ld, "
                "create_timing_cache: %ld, set_timing_cache: %ld, timing_cache: %ld, ",
        P(VBuilderConfig, addOptimizationProfile), P(VBuilderConfig, clearFlag), P(VBuilderConfig, setFlag),
        P(VBuilderConfig, setTacticSources), P(VBuilderConfig, createTimingCache), P(VBuilderConfig, setTimingCache), P(VBuilderConfig, getTimingCache));
#if NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR < 6
    print_optional("set_level");
#else
    print_optional("set_level", &VBuilderConfig::setBuilderOptimizationLevel);
#endif
#if BEFORE_10
    print_optional(", set_progress_monitor");
#else
    print_optional(", set_progress_monitor", &VBuilderConfig::setProgressMonitor);
#endif
    std::printf(" }, tactics: [");
#if BEFORE_10 || NV_TENSORRT_MAJOR == 10
    std::printf("(\"cublas\", %d), (\"cublas_lt\", %d), (\"cudnn\", %d), ", int(TacticSource::kCUBLAS),
        int(TacticSource::kCUBLAS_LT), int(TacticSource::kCUDNN));
#endif
    std::printf("(\"edge_mask_convolutions\", %d), (\"jit_convolutions\", %d)], ",
        int(TacticSource::kEDGE_MASK_CONVOLUTIONS), int(TacticSource::kJIT_CONVOLUTIONS));
    std::printf("timing_cache: TimingCache { serialize: %ld }, ", P(VTimingCache, serialize));
    std::printf("network: Network { inputs: %ld, input: %ld, outputs: %ld, output: %ld }, ",
        P(VNetworkDefinition, getNbInputs), P(VNetworkDefinition, getInput), P(VNetworkDefinition, getNbOutputs),
        P(VNetworkDefinition, getOutput));
    std::printf("tensor: Tensor { name: %ld, dims: %ld, dtype: %ld }, ", P(VTensor, getName), P(VTensor, getDimensions),
        P(VTensor, getType));
    std::printf("profile: Profile { set_dims: %ld }, ",
        place(static_cast<SetDims<VOptimizationProfile>>(&VOptimizationProfile::setDimensions)));
    std::printf("host_memory: HostMemory { data: %ld, size: %ld }, ", P(VHostMemory, data), P(VHostMemory, size));
    std::printf("parser: Parser { parse: %ld, errors: %ld, error: %ld, delete: %ld }, ", P(IParser, parse),
        P(IParser, getNbErrors), P(IParser, getError), parser_delete());
    std::printf("parser_error: ParserError { text: %ld, node: %ld, ", P(IParserError, desc), P(IParserError, node));
#if BEFORE_10
    print_optional("node_name");
    print_optional(", operator");
#else
    print_optional("node_name", &IParserError::nodeName);
    print_optional(", operator", &IParserError::nodeOperator);
#endif
    std::printf(" }, ");
    std::printf("runtime: Runtime { deserialize: %ld }, ",
        place(static_cast<Load<VRuntime>>(&VRuntime::deserializeCudaEngine)));
    std::printf("engine: Engine { create_context: %ld, shape: %ld, dtype: %ld, io_mode: %ld, tensors: %ld, "
                "tensor_name: %ld, ",
        place(static_cast<MakeContext<VCudaEngine>>(&VCudaEngine::createExecutionContext)),
        P(VCudaEngine, getTensorShape), P(VCudaEngine, getTensorDataType), P(VCudaEngine, getTensorIOMode),
        P(VCudaEngine, getNbIOTensors), P(VCudaEngine, getIOTensorName));
#if BEFORE_10
    print_optional("create_context_without_memory", &VCudaEngine::createExecutionContextWithoutDeviceMemory);
    print_optional(", memory_bytes", &VCudaEngine::getDeviceMemorySize);
#else
    print_optional("create_context_without_memory");
    print_optional(", memory_bytes");
#endif
    std::printf(" }, context: Context { set_profile: %ld, set_input_shape: %ld, shape: %ld, set_address: %ld, enqueue: %ld, ",
        P(VExecutionContext, setOptimizationProfileAsync), P(VExecutionContext, setInputShape),
        P(VExecutionContext, getTensorShape), P(VExecutionContext, setTensorAddress), P(VExecutionContext, enqueueV3));
#if BEFORE_10
    print_optional("set_memory", &VExecutionContext::setDeviceMemory);
#else
    print_optional("set_memory");
#endif
    std::printf(" } }\n");
}
