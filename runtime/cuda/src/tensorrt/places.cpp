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

template <class T> using Load = ICudaEngine* (T::*)(void const*, std::size_t) noexcept;
template <class T> using MakeContext = IExecutionContext* (T::*)(ExecutionContextAllocationStrategy) noexcept;

static_assert(sizeof(Dims) == 72 && offsetof(Dims, d) == 8);
static_assert(offsetof(IBuilder, mImpl) == 8 && offsetof(IBuilderConfig, mImpl) == 8 && offsetof(ITensor, mImpl) == 8);
static_assert(offsetof(INetworkDefinition, mImpl) == 8 && offsetof(IOptimizationProfile, mImpl) == 8);
static_assert(offsetof(IHostMemory, mImpl) == 8 && offsetof(IRuntime, mImpl) == 8);
static_assert(offsetof(ICudaEngine, mImpl) == 8 && offsetof(IExecutionContext, mImpl) == 8);
static_assert(int(TensorIOMode::kINPUT) == 1 && int(ExecutionContextAllocationStrategy::kSTATIC) == 0);
static_assert(int(OptProfileSelector::kMIN) == 0 && int(OptProfileSelector::kOPT) == 1 && int(OptProfileSelector::kMAX) == 2);
static_assert(int(DataType::kFLOAT) == 0 && int(DataType::kHALF) == 1 && int(DataType::kUINT8) == 5);

#define P(class, function) place(&class::function)

int main() {
    using namespace apiv;
    using nvonnxparser::IParser;
    using nvonnxparser::IParserError;
    std::printf("%d %d\n", int(NV_TENSORRT_VERSION), NV_TENSORRT_MAJOR < 8);
    std::printf("Layout { versioned_logger: %s, strongly_typed: %d, ", P(ILogger, log) == 0 ? "false" : "true",
        1 << int(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED));
    std::printf("builder: Builder { create_config: %ld, create_network: %ld, create_profile: %ld, build: %ld }, ",
        P(VBuilder, createBuilderConfig), P(VBuilder, createNetworkV2), P(VBuilder, createOptimizationProfile),
        P(VBuilder, buildSerializedNetwork));
    std::printf("config: Config { add_profile: %ld, set_progress_monitor: %ld }, ",
        P(VBuilderConfig, addOptimizationProfile), P(VBuilderConfig, setProgressMonitor));
    std::printf("network: Network { inputs: %ld, input: %ld, outputs: %ld, output: %ld }, ",
        P(VNetworkDefinition, getNbInputs), P(VNetworkDefinition, getInput), P(VNetworkDefinition, getNbOutputs),
        P(VNetworkDefinition, getOutput));
    std::printf("tensor: Tensor { name: %ld, dims: %ld, dtype: %ld }, ", P(VTensor, getName), P(VTensor, getDimensions),
        P(VTensor, getType));
    std::printf("profile: Profile { set_dims: %ld }, ", P(VOptimizationProfile, setDimensions));
    std::printf("host_memory: HostMemory { data: %ld, size: %ld }, ", P(VHostMemory, data), P(VHostMemory, size));
    std::printf("parser: Parser { parse: %ld, errors: %ld, error: %ld, delete: %ld }, ", P(IParser, parse),
        P(IParser, getNbErrors), P(IParser, getError), parser_delete());
    std::printf("parser_error: ParserError { text: %ld, node: %ld, node_name: %ld, operator: %ld }, ",
        P(IParserError, desc), P(IParserError, node), P(IParserError, nodeName), P(IParserError, nodeOperator));
    std::printf("runtime: Runtime { deserialize: %ld }, ",
        place(static_cast<Load<VRuntime>>(&VRuntime::deserializeCudaEngine)));
    std::printf("engine: Engine { create_context: %ld, shape: %ld, dtype: %ld, io_mode: %ld, tensors: %ld, "
                "tensor_name: %ld }, ",
        place(static_cast<MakeContext<VCudaEngine>>(&VCudaEngine::createExecutionContext)),
        P(VCudaEngine, getTensorShape), P(VCudaEngine, getTensorDataType), P(VCudaEngine, getTensorIOMode),
        P(VCudaEngine, getNbIOTensors), P(VCudaEngine, getIOTensorName));
    std::printf("context: Context { set_input_shape: %ld, shape: %ld, set_address: %ld, enqueue: %ld } }\n",
        P(VExecutionContext, setInputShape), P(VExecutionContext, getTensorShape),
        P(VExecutionContext, setTensorAddress), P(VExecutionContext, enqueueV3));
}
