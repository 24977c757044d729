// The kernels by name. Each takes a Batch by value, frame z of it for blocks z of the grid.

#ifndef HOST
#include "device.cuh"
#endif
#include "convert.cuh"

// Pixels of a thread along x and rows of a block, by the size of an element; kernels/src/cuda/grid.rs has the same.
#define KERNELS(X)                                                                                                     \
    X(millrace_f32_nchw, (convert<F32, true, 2, 4>))                                                                   \
    X(millrace_f32_nhwc, (convert<F32, false, 2, 4>))                                                                  \
    X(millrace_f16_nchw, (convert<F16, true, 2, 4>))                                                                   \
    X(millrace_f16_nhwc, (convert<F16, false, 2, 4>))                                                                  \
    X(millrace_u8_nchw, (convert<U8, true, 4, 4>))                                                                     \
    X(millrace_u8_nhwc, (convert<U8, false, 4, 4>))                                                                    \
    X(millrace_f32_planes, (planes<F32, 2, 4>))                                                                        \
    X(millrace_f16_planes, (planes<F16, 2, 4>))                                                                        \
    X(millrace_u8_planes, (planes<U8, 4, 4>))

#define DEFINE(name, body)                                                                                             \
    KERNEL(name, Batch) { body(parameter); }
#ifndef TUNE
KERNELS(DEFINE)
#else
TUNE(DEFINE)
#endif
