// The kernels by name. Each takes a Batch by value, frame z of it for blocks z of the grid.

#ifndef HOST
#include "device.cuh"
#endif
#include "convert.cuh"

// Pixels of a thread along x and rows of a block, by the type of an element; kernels/src/cuda/grid.rs has the same.
#define KERNELS_OF(X, name, Element, PIXELS, ROWS)                                                                     \
    X(millrace_##name##_nchw, (convert<Element, true, PIXELS, ROWS>))                                                  \
    X(millrace_##name##_nhwc, (convert<Element, false, PIXELS, ROWS>))                                                 \
    X(millrace_##name##_planes, (planes<Element, PIXELS, ROWS>))
#define KERNELS_F32(X) KERNELS_OF(X, f32, F32, 2, 4)
#define KERNELS_F16(X) KERNELS_OF(X, f16, F16, 4, 4)
#define KERNELS_U8(X) KERNELS_OF(X, u8, U8, 4, 4)

// ptx/build.py chooses those of one element for each file
#ifndef CHOSEN
#define CHOSEN(X) KERNELS_F32(X) KERNELS_F16(X) KERNELS_U8(X)
#endif

#define DEFINE(name, body)                                                                                             \
    KERNEL(name, Batch) { body(parameter); }
CHOSEN(DEFINE)
