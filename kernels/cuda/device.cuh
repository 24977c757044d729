// What the bodies use of CUDA, under the names that host_shim.h gives to the same things in plain C++.
#pragma once

// Blocks of 256 threads that an SM must have registers for; ptx/build.py --tune tries others.
#ifndef MIN_BLOCKS
#define MIN_BLOCKS 4
#endif
#define DEVICE __device__ __forceinline__
#define UNROLL(count) _Pragma(TEXT(unroll count))
#define TEXT(words) #words
#define KERNEL(name, blocks, Parameter) extern "C" __global__ void __launch_bounds__(256, blocks) name(const __grid_constant__ Parameter parameter)

// Memory that nobody writes during the launch: the read-only path, which may be read ahead of the stores.
template <class T> DEVICE T load(const T *from) { return __ldg(from); }

DEVICE float float_of_bits(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned bits_of_float(float value) { return __float_as_uint(value); }

// Bytes of the eight of `low` and `high`, by the four digits of `pick`.
DEVICE unsigned pick_bytes(unsigned low, unsigned high, unsigned pick) { return __byte_perm(low, high, pick); }

// Dot product of two 16-bit numbers and the lower (upper) two bytes, added to the third.
DEVICE unsigned dot_low(unsigned pair, unsigned bytes, unsigned sum) {
    asm("dp2a.lo.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(pair), "r"(bytes));
    return sum;
}
DEVICE unsigned dot_high(unsigned pair, unsigned bytes, unsigned sum) {
    asm("dp2a.hi.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(pair), "r"(bytes));
    return sum;
}

// Dot product of four bytes and four bytes, added to the third.
DEVICE unsigned dot_four(unsigned weights, unsigned bytes, unsigned sum) {
    asm("dp4a.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(weights), "r"(bytes));
    return sum;
}

// To the nearest, ties to even.
DEVICE unsigned short half_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

DEVICE float float_of_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Adds one to a count that many threads count up, and says what it was.
DEVICE unsigned count_up(unsigned *count) { return atomicAdd(count, 1u); }
