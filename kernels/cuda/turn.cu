// The kernels of turn.cuh by name, by the bytes of a sample. Each takes a Turn by value.

#ifndef HOST
#include "device.cuh"
#endif
#include "turn.cuh"

#define KERNELS_OF_TURN(X)                                                                                             \
    X(millrace_turn_1, MIN_BLOCKS, (turn<u8>))                                                                         \
    X(millrace_turn_2, MIN_BLOCKS, (turn<u16>))                                                                        \
    X(millrace_turn_4, MIN_BLOCKS, (turn<u32>))

#define DEFINE_OF_TURN(name, blocks, body)                                                                             \
    KERNEL(name, blocks, Turn) { body(parameter); }
KERNELS_OF_TURN(DEFINE_OF_TURN)
