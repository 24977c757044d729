// The kernels of candidates.cuh by name. Each takes a Candidates by value.

#ifndef HOST
#include "device.cuh"
#endif
#include "candidates.cuh"

#define KERNELS_OF_CANDIDATES(X)                                                                                       \
    X(millrace_find_f32, MIN_BLOCKS, (find<Single>))                                                                   \
    X(millrace_find_f16, MIN_BLOCKS, (find<Half>))                                                                     \
    X(millrace_gather_f32, MIN_BLOCKS, (gather<Single>))                                                               \
    X(millrace_gather_f16, MIN_BLOCKS, (gather<Half>))

#define DEFINE_OF_CANDIDATES(name, blocks, body)                                                                       \
    KERNEL(name, blocks, Candidates) { body(parameter); }
KERNELS_OF_CANDIDATES(DEFINE_OF_CANDIDATES)
