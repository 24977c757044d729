// The kernels by name. Each takes a Batch by value, frame z of it for blocks z of the grid.

#ifndef HOST
#include "device.cuh"
#endif
#include "whole.cuh"

// Pixels of a thread along x and rows of a block, by the type of an element; kernels/src/cuda/grid.rs has the same.
// And how many blocks of whole.cuh an SM must have registers for.
#define KERNELS_OF(X, name, Element, PIXELS, ROWS, BLOCKS)                                                             \
    KERNELS_IN(X, name##_nchw, Element, true, PIXELS, ROWS, BLOCKS)                                                    \
    KERNELS_IN(X, name##_nhwc, Element, false, PIXELS, ROWS, BLOCKS)                                                   \
    X(millrace_##name##_planes, MIN_BLOCKS, (planes<Element, PIXELS, ROWS>))
#define KERNELS_IN(X, name, Element, PLANAR, PIXELS, ROWS, BLOCKS)                                                     \
    X(millrace_##name, MIN_BLOCKS, (convert<Element, PLANAR, PIXELS, ROWS>))                                           \
    X(millrace_##name##_pad, MIN_BLOCKS, (pad<Element, PLANAR, PIXELS, ROWS>))                                         \
    X(millrace_##name##_by2, BLOCKS, (whole<Element, PLANAR, 2>))                                                      \
    X(millrace_##name##_by3, BLOCKS, (whole<Element, PLANAR, 3>))                                                      \
    X(millrace_##name##_by4, BLOCKS, (whole<Element, PLANAR, 4>))                                                      \
    X(millrace_##name##_by6, BLOCKS, (whole<Element, PLANAR, 6>))
#define KERNELS_F32(X) KERNELS_OF(X, f32, F32, 2, 4, 4)
#define KERNELS_F16(X) KERNELS_OF(X, f16, F16, 4, 4, 5)
#define KERNELS_U8(X) KERNELS_OF(X, u8, U8, 4, 4, 4)

// ptx/build.py chooses those of one element for each file
#ifndef CHOSEN
#define CHOSEN(X) KERNELS_F32(X) KERNELS_F16(X) KERNELS_U8(X)
#endif

#define DEFINE(name, blocks, body)                                                                                     \
    KERNEL(name, blocks, Batch) { body(parameter); }
CHOSEN(DEFINE)
