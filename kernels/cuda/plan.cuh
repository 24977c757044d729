// What a launch is told, as kernels/src/cuda/plan.rs writes it. Plain data in native byte order.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

// Two neighbouring samples along an axis: `first << 15 | weight of the second`, of weights that add up to ONE. The
// second is the next sample; where its weight is 0 it is not read. kernels/src/convert/taps.rs computes them.
using Tap = u32;
constexpr u32 TAP_BITS = 15;
constexpr u32 ONE = 1 << 14;

// How the samples lie; what needs no kind of its own is one of the first two.
enum Kind : u32 { SAMPLES_8 = 0, SAMPLES_16 = 1, NV12 = 2 };

// A half of a pair that one load reads.
DEVICE u32 lower_half(u64 pair) { return u32(pair); }
DEVICE u32 upper_half(u64 pair) { return u32(pair >> 32); }

// All that is known of the frames of one description before one of them is there. Its taps follow it in memory.
struct Plan {
    // of the three components (Y, Cb, Cr, or the three of an RGB image as stored): the first sample from the start of
    // the frame's slot, from row to row, from sample to sample (of component 0, of 1 and 2)
    u64 offset_bytes[3];
    u32 pitch_bytes[3];
    u32 step_bytes[2];
    u32 kind;
    // of the tensor, and the part of it that shows the picture; the rest is padding
    u32 width, height;
    u32 left, top, placed_width, placed_height;
    // of each channel: clamp(weights . components + constant, low, high), components scaled by ONE
    float weights[3][3], constant[3], low[3], high[3];
    // where the scale is a whole number (whole.cuh): bytes from the start of a plane to the first sample of the picture,
    // of luma and chroma; and of a row and a column, even or odd, the weights of the four chroma samples in sixteenths,
    // a byte each: of the upper row the left and the right one, of the lower row the same
    u32 start_bytes[2];
    u32 sixteenths[2][2];
    // padding pixels
    float pad[3];
    // index of the first tap of: component 0 along x, along y, components 1 and 2 along x, along y
    u32 taps[4];

    DEVICE const Tap *taps_of(int axis) const {
        return reinterpret_cast<const Tap *>(this + 1) + load(&taps[axis]);
    }
};

static_assert(sizeof(Plan) == 200, "kernels/src/cuda/plan.rs writes it so");

// Numbers of a plan by two at a time: `first` is at a multiple of eight bytes.
template <class Number> DEVICE u64 load_pair(const Number *first, int pair) {
    static_assert(sizeof(Number) == 4, "two of them are a pair");
    return load(reinterpret_cast<const u64 *>(first) + pair);
}

// One frame of a launch: three addresses.
struct Frame {
    u64 source;
    u64 tensor;
    u64 plan;
};

// A launch is told of its frames by value: nothing to copy to the GPU, nothing to keep until the launch is done.
// Parameters of a kernel have room for 4096 bytes.
constexpr u32 MAX_FRAMES = 128;
struct Batch {
    Frame frames[MAX_FRAMES];
};
