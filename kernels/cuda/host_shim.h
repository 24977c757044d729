// The same kernels as plain C++: what device.cuh takes from CUDA, written out. Compiled with -ffp-contract=off, as
// the device code is with --fmad=false, so both compute the same bits.
#pragma once

#include <cmath>
#include <cstring>

#define DEVICE inline
#define UNROLL(count)
#define KERNEL(name, blocks, Parameter) static void name(const Parameter &parameter)

struct Index {
    unsigned x, y, z;
};
static thread_local Index blockIdx, threadIdx, blockDim;

template <class T> inline T load(const T *from) { return *from; }

inline float float_of_bits(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned bits_of_float(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Bytes of the eight of `low` and `high`, by the four digits of `pick`.
inline unsigned pick_bytes(unsigned low, unsigned high, unsigned pick) {
    const unsigned long long all = (unsigned long long)high << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        result |= (unsigned)(all >> 8 * (pick >> 4 * i & 7) & 0xff) << 8 * i;
    }
    return result;
}

// Dot product of two 16-bit numbers and the lower (upper) two bytes, added to the third.
inline unsigned dot_low(unsigned pair, unsigned bytes, unsigned sum) {
    return sum + (pair & 0xffff) * (bytes & 0xff) + (pair >> 16) * (bytes >> 8 & 0xff);
}
inline unsigned dot_high(unsigned pair, unsigned bytes, unsigned sum) { return dot_low(pair, bytes >> 16, sum); }

// Dot product of four bytes and four bytes, added to the third.
inline unsigned dot_four(unsigned weights, unsigned bytes, unsigned sum) {
    for (int i = 0; i < 32; i += 8) {
        sum += (weights >> i & 0xff) * (bytes >> i & 0xff);
    }
    return sum;
}

// To the nearest, ties to even: a division by a power of two, which is exact, of a number that rint has rounded.
inline unsigned short half_bits(float value) {
    const unsigned sign = std::signbit(value) ? 0x8000 : 0;
    int exponent = -24; // of 0, which has none
    if (value != 0.0f) {
        std::frexp(value, &exponent);
    }
    // the step of f16 at this magnitude: 11 bits of mantissa, but never less than 2^-24
    const int step = exponent - 11 < -24 ? -24 : exponent - 11;
    const unsigned mantissa = (unsigned)std::nearbyint(std::ldexp(std::fabs(value), -step));
    // the mantissa's upper bit, where it is there, and a carry beyond it, add to the exponent
    return (unsigned short)(sign | (((unsigned)(step + 24) << 10) + mantissa));
}

// Of subnormal numbers the mantissa counts in 2^-24; of the others a bit is added to it, and the step grows.
inline float float_of_half(unsigned short bits) {
    const int exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
    if (exponent == 0x1f) {
        return float_of_bits((unsigned)(bits & 0x8000) << 16 | 0x7f800000 | (unsigned)mantissa << 13);
    }
    const float magnitude = exponent == 0 ? std::ldexp((float)mantissa, -24) : std::ldexp(1024.0f + mantissa, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

// Adds one to a count that many threads count up, and says what it was. Here they come one after the other.
inline unsigned count_up(unsigned *count) { return (*count)++; }
