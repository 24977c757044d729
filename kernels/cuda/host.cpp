// The kernels on a CPU: every thread of every block, one after the other.

#include "host_shim.h"
#define HOST
#include "kernels.cu"

// Runs a kernel by name; args[0] points to its Batch. 0, or 1 where there is no such kernel.
extern "C" int millrace_host_launch(const char *kernel_name, const unsigned grid[3], const unsigned block[3],
                                    void **args) {
    void (*kernel)(const Batch &) = nullptr;
#define FIND(name, blocks, body)                                                                                       \
    if (std::strcmp(kernel_name, #name) == 0) {                                                                        \
        kernel = name;                                                                                                 \
    }
    CHOSEN(FIND)
    if (kernel == nullptr) {
        return 1;
    }
    const Batch &batch = *static_cast<const Batch *>(args[0]);
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
                            kernel(batch);
    return 0;
}
