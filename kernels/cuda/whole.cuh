// The fused pass where a pixel of the tensor has SCALE x SCALE pixels of an NV12 frame: 1080p into 640 pixels, for one.
// It gives the bits that convert.cuh gives, with fewer and wider loads: the samples lie in a pattern that is known when
// this is compiled, so those of neighbours are read by words, as they lie in memory, and picked from registers.
//
// In, beyond what convert.cuh asks for: a picture SCALE times as wide and as high as it is placed; placed, it is a
// multiple of WHOLE_PIXELS wide; it begins at even pixels; its chroma is sited so that each pixel lies between the two samples
// that chroma_at names; the addresses of the first luma and chroma sample and both pitches are whole words.
// kernels/src/cuda/whole.rs checks it. Out: as `convert`.
//
// All weights are multiples of 1/4 along each axis. So a weighted sum of four samples is a whole number of sixteenths,
// which f32 holds exactly: one dot product gives what two steps of interpolation give, and nothing is rounded.
#pragma once

#include "convert.cuh"

// Neighbours of a thread; ptx/build.py --tune tries others.
#ifndef WHOLE_PIXELS
#define WHOLE_PIXELS 4
#endif

// Which sample of an axis the pixel (or row) `k` reads, the first of two; an odd scale needs no second of luma.
template <int SCALE> DEVICE constexpr int luma_at(int k) { return SCALE * k + (SCALE - 1) / 2; }
template <int SCALE> DEVICE constexpr int chroma_at(int k) {
    return SCALE * (k / 2) + (k % 2 == 0 ? SCALE - 2 : 3 * SCALE - 2) / 4;
}

// f32s whose mantissa counts in sixteenths, quarters and ones of a component, which is scaled by ONE.
constexpr u32 SIXTEENTHS_BITS = 0x50000000, QUARTERS_BITS = 0x51000000, ONES_BITS = 0x52000000;

DEVICE float counted(u32 bits, u32 zero_bits) { return float_of_bits(bits) - float_of_bits(zero_bits); }

// What the pixels of a thread read of a row of luma or of chroma.
template <int SCALE> struct Row {
    static constexpr int WORDS = SCALE * WHOLE_PIXELS / 4;
    // whether the last pixel reads a sample of the next thread's: chroma does, at a scale of 2
    static constexpr bool BEYOND = 2 * chroma_at<SCALE>(WHOLE_PIXELS - 1) + 2 == SCALE * WHOLE_PIXELS;
    u32 words[WORDS + 1];

    DEVICE void read(const u8 *from) {
        for (int i = 0; i < WORDS; ++i) {
            words[i] = load(reinterpret_cast<const u32 *>(from) + i);
        }
        words[WORDS] = 0;
    }

    // Where the row ends, the last sample is its own neighbour.
    DEVICE void read_chroma(const u8 *from, bool ends) {
        read(from);
        if (BEYOND) {
            words[WORDS] = ends ? words[WORDS - 1] >> 16 : load(reinterpret_cast<const u16 *>(from + 4 * WORDS));
        }
    }

    // Bytes at, at + 1 as the lower two.
    DEVICE u32 two_at(int at) const {
        return pick_bytes(words[at / 4], words[at / 4 + 1], (at % 4 + 1) << 4 | at % 4);
    }

    // Cb, Cb, Cr, Cr of two neighbours.
    DEVICE u32 chroma(int k) const {
        const int at = 2 * chroma_at<SCALE>(k);
        return pick_bytes(words[at / 4], words[at / 4 + 1], at % 4 == 0 ? 0x3120 : 0x5342);
    }
};

template <int SCALE> DEVICE float luma(const Row<SCALE> &upper, const Row<SCALE> &lower, int k) {
    const int at = luma_at<SCALE>(k);
    if constexpr (SCALE % 2 == 1) {
        // the sample as the last byte of ONES_BITS
        return counted(pick_bytes(upper.words[at / 4], ONES_BITS, 0x7440 | at % 4), ONES_BITS);
    } else {
        const u32 four = pick_bytes(upper.two_at(at), lower.two_at(at), 0x5410);
        return counted(dot_four(0x01010101, four, QUARTERS_BITS), QUARTERS_BITS);
    }
}

DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }

// A thread has neighbours along x in two rows, which have a row of chroma in common where the scale is 2 or 3.
template <class Element, bool PLANAR, int SCALE> DEVICE void whole(const Batch &batch) {
    const Frame &frame = batch.frames[blockIdx.z];
    const Plan &plan = *reinterpret_cast<const Plan *>(frame.plan);
    const u8 *source = reinterpret_cast<const u8 *>(frame.source);
    Element *tensor = reinterpret_cast<Element *>(frame.tensor);
    const Place place(plan);
    const u32 x = (blockIdx.x * blockDim.x + threadIdx.x) * WHOLE_PIXELS;
    const u32 y = (blockIdx.y * blockDim.y + threadIdx.y) * 2;
    if (x >= place.placed_width || y >= place.placed_height) {
        return;
    }
    const u64 pitches = load_pair(plan.pitch_bytes, 0), starts = load_pair(plan.start_bytes, 0);
    const u32 luma_pitch = lower_half(pitches), chroma_pitch = upper_half(pitches);
    const u8 *luma_start = source + load(&plan.offset_bytes[0]) + lower_half(starts) + SCALE * x;
    const u8 *chroma_start = source + load(&plan.offset_bytes[1]) + upper_half(starts) + SCALE * x;
    // below the last row there is none: what would be read there has no weight, or is a row of the picture's end again
    const u32 luma_last = SCALE * place.placed_height - 1, chroma_last = luma_last / 2;
    Row<SCALE> lumas[2][2], chromas[2][2];
    for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 2 - SCALE % 2; ++i) {
            const u32 row = smaller(SCALE * y + luma_at<SCALE>(r) + i, luma_last);
            lumas[r][i].read(luma_start + u64(row) * luma_pitch);
        }
    }
    constexpr bool SHARED = chroma_at<SCALE>(1) == chroma_at<SCALE>(0) + 1;
    for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 2; ++i) {
            if (SHARED && r == 1 && i == 0) {
                chromas[1][0] = chromas[0][1];
                continue;
            }
            const u32 row = smaller(SCALE * (y / 2) + chroma_at<SCALE>(r) + i, chroma_last);
            chromas[r][i].read_chroma(chroma_start + u64(row) * chroma_pitch, x + WHOLE_PIXELS == place.placed_width);
        }
    }
    const Colour colour(plan);
    UNROLL(2)
    for (int r = 0; r < 2; ++r) {
        const u64 both = load_pair(plan.sixteenths[r], 0);
        const u32 weights[2] = {lower_half(both), upper_half(both)};
        float value[3][WHOLE_PIXELS];
        for (int k = 0; k < WHOLE_PIXELS; ++k) {
            const u32 upper = chromas[r][0].chroma(k), lower = chromas[r][1].chroma(k);
            const u32 cb = dot_four(weights[k % 2], pick_bytes(upper, lower, 0x5410), SIXTEENTHS_BITS);
            const u32 cr = dot_four(weights[k % 2], pick_bytes(upper, lower, 0x7632), SIXTEENTHS_BITS);
            for (int c = 0; c < 3; ++c) {
                value[c][k] = colour.channel(c, luma<SCALE>(lumas[r][0], lumas[r][1], k),
                                             counted(cb, SIXTEENTHS_BITS), counted(cr, SIXTEENTHS_BITS));
            }
        }
        if (y + r < place.placed_height) {
            put<Element, PLANAR, WHOLE_PIXELS>(tensor, place, place.left + x, place.top + y + r, value, WHOLE_PIXELS);
        }
    }
}
