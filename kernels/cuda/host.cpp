// The kernels on a CPU: every thread of every block, one after the other.

#include "host_shim.h"
#define HOST
#include "candidates.cu"
#include "kernels.cu"
#include "turn.cu"

template <class Parameter>
static int run(void (*kernel)(const Parameter &), const unsigned grid[3], const unsigned block[3], void **args) {
    const Parameter &parameter = *static_cast<const Parameter *>(args[0]);
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
                            kernel(parameter);
    return 0;
}

// Runs a kernel by name; args[0] points to its parameter. 0, or 1 where there is no such kernel.
extern "C" int millrace_host_launch(const char *kernel_name, const unsigned grid[3], const unsigned block[3],
                                    void **args) {
#define FIND(name, blocks, body)                                                                                       \
    if (std::strcmp(kernel_name, #name) == 0) {                                                                        \
        return run(name, grid, block, args);                                                                           \
    }
    CHOSEN(FIND)
    KERNELS_OF_CANDIDATES(FIND)
    KERNELS_OF_TURN(FIND)
    return 1;
}
