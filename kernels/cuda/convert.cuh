// The fused pass: frames of any size and format to letterboxed, normalized tensors; kernels/src/convert is the same
// on a CPU, and gives the same bits.
//
// In: frames that plan.cuh describes, any pitch, alignment, crop and odd size; nothing beyond a plane's last sample is
// read. Out: contiguous tensors that begin at a multiple of their element's bytes; each element is written once, padding too. Not in place. A launch is
// ordered by its stream alone: no shared memory, no barrier, no atomics. No status: the launcher has checked it all.
//
// A block is a strip of ROWS rows of the tensor of frame blockIdx.z, a thread PIXELS neighbours along x in each of
// them. So what belongs to a column is computed once for ROWS rows, and what belongs to a row is the same for the
// whole block, which the GPU's scalar unit computes.
#pragma once

#include "plan.cuh"

// Two samples of a row: bytes from the row's start, and their weights, that of the first in the lower half.
struct Pair {
    u32 first, second, weights;

    DEVICE Pair() {}
    DEVICE Pair(Tap tap, u32 step_bytes) {
        const u32 second_weight = tap & ((1 << TAP_BITS) - 1);
        weights = (ONE - second_weight) | second_weight << 16;
        first = (tap >> TAP_BITS) * step_bytes;
        second = first + (second_weight == 0 ? 0 : step_bytes);
    }
};

// Two rows of a component, and the weight of the second.
struct Rows {
    const u8 *first, *second;
    float weight;

    DEVICE Rows(Tap tap, const u8 *start, u32 pitch_bytes) {
        const u32 part = tap & ((1 << TAP_BITS) - 1);
        first = start + u64(tap >> TAP_BITS) * pitch_bytes;
        second = first + (part == 0 ? 0 : pitch_bytes);
        weight = float(part) * (1.0f / ONE);
    }
};

// An f32 whose mantissa counts in ones: 2^23, to which a whole number is added by adding to its bits.
constexpr u32 TWO_23_BITS = 0x4b000000;
constexpr float TWO_23 = 8388608.0f;

// At most 255 * 2^14, below 2^23: no conversion, which takes a GPU four times as long.
DEVICE float exact(u32 sum_in_bits) { return float_of_bits(sum_in_bits) - TWO_23; }

// What a row of PIXELS outputs reads, before any of it is looked at: [component][row][first, second][pixel]. What has
// no weight is 0 and not read.
template <int PIXELS> struct Samples {
    u32 at[3][2][2][PIXELS];
    float weight[3];
};

// Components 0, 1 and 2 of PIXELS columns, row by row; each component is read by itself.
template <class Sample, int PIXELS> struct Planes {
    static constexpr int ROWS_AT_ONCE = 1;
    Pair full[PIXELS], half[PIXELS];

    DEVICE void column(int i, const Plan &plan, Tap full_tap, Tap half_tap) {
        full[i] = Pair(full_tap, load(&plan.step_bytes[0]));
        half[i] = Pair(half_tap, load(&plan.step_bytes[1]));
    }

    DEVICE void fetch(const Plan &plan, const u8 *source, Tap full_tap, Tap half_tap, Samples<PIXELS> &out) const {
        for (int c = 0; c < 3; ++c) {
            const Rows rows(c == 0 ? full_tap : half_tap, source + load(&plan.offset_bytes[c]),
                            load(&plan.pitch_bytes[c]));
            gather<Sample>(rows, c == 0 ? full : half, out, c);
        }
    }

    DEVICE void blend(const Samples<PIXELS> &in, float out[3][PIXELS]) const {
        for (int c = 0; c < 3; ++c) {
            component(in, c, c == 0 ? full : half, out[c]);
        }
    }

    // Nothing here waits for what it reads: a wait for each of a row's places would be most of a kernel's time.
    template <class Part>
    DEVICE static void gather(const Rows &rows, const Pair *pairs, Samples<PIXELS> &out, int c) {
        out.weight[c] = rows.weight;
        for (int i = 0; i < PIXELS; ++i) {
            const bool next = pairs[i].weights >> 16 != 0, below = rows.weight != 0.0f;
            for (int k = 0; k < 2; ++k) {
                out.at[c][0][k][i] = out.at[c][1][k][i] = 0;
            }
            out.at[c][0][0][i] = sample<Part>(rows.first + pairs[i].first);
            if (next) {
                out.at[c][0][1][i] = sample<Part>(rows.first + pairs[i].second);
            }
            if (below) {
                out.at[c][1][0][i] = sample<Part>(rows.second + pairs[i].first);
            }
            if (below && next) {
                out.at[c][1][1][i] = sample<Part>(rows.second + pairs[i].second);
            }
        }
    }

    template <class Part> DEVICE static u32 sample(const u8 *from) {
        if (sizeof(Part) == sizeof(Sample) && sizeof(Sample) == 2) {
            return load(from) | u32(load(from + 1)) << 8; // any alignment
        }
        return load(reinterpret_cast<const Part *>(from));
    }

    DEVICE static void component(const Samples<PIXELS> &in, int c, const Pair *pairs, float *out) {
        for (int i = 0; i < PIXELS; ++i) {
            const float above = across(in.at[c][0][0][i], in.at[c][0][1][i], pairs[i].weights);
            const float below = across(in.at[c][1][0][i], in.at[c][1][1][i], pairs[i].weights);
            out[i] = above + (below - above) * in.weight[c];
        }
    }

    // The weighted sum of two samples: exact for 8 bits, rounded once for 16.
    DEVICE static float across(u32 first, u32 second, u32 weights) {
        if (sizeof(Sample) == 1) {
            return exact(dot_low(weights, pick_bytes(first, second, 0x0040), TWO_23_BITS));
        }
        return float(int(first * (weights & 0xffff) + second * (weights >> 16)));
    }
};

// The next rows' loads are on their way while one is computed; ptx/build.py --tune tries other numbers.
#ifndef NV12_ROWS_AT_ONCE
#define NV12_ROWS_AT_ONCE (PIXELS == 1 ? 4 : 2)
#endif

// NV12 whose chroma lies on even addresses: Cb and Cr by one load.
template <int PIXELS> struct Nv12 : Planes<u8, PIXELS> {
    static constexpr int ROWS_AT_ONCE = NV12_ROWS_AT_ONCE;

    DEVICE static bool fits(const Plan &plan, const u8 *source) {
        return ((u64(source) + load(&plan.offset_bytes[1])) % 2 | load(&plan.pitch_bytes[1]) % 2) == 0;
    }

    DEVICE void fetch(const Plan &plan, const u8 *source, Tap full_tap, Tap half_tap, Samples<PIXELS> &out) const {
        const Rows luma(full_tap, source + load(&plan.offset_bytes[0]), load(&plan.pitch_bytes[0]));
        const Rows chroma(half_tap, source + load(&plan.offset_bytes[1]), load(&plan.pitch_bytes[1]));
        this->template gather<u8>(luma, this->full, out, 0);
        this->template gather<u16>(chroma, this->half, out, 1);
    }

    DEVICE void blend(const Samples<PIXELS> &in, float out[3][PIXELS]) const {
        this->component(in, 0, this->full, out[0]);
        for (int i = 0; i < PIXELS; ++i) {
            float cb[2], cr[2];
            for (int r = 0; r < 2; ++r) {
                const u32 bytes = pick_bytes(in.at[1][r][0][i], in.at[1][r][1][i], 0x5140); // Cb, Cb, Cr, Cr
                cb[r] = exact(dot_low(this->half[i].weights, bytes, TWO_23_BITS));
                cr[r] = exact(dot_high(this->half[i].weights, bytes, TWO_23_BITS));
            }
            out[1][i] = cb[0] + (cb[1] - cb[0]) * in.weight[1];
            out[2][i] = cr[0] + (cr[1] - cr[0]) * in.weight[1];
        }
    }
};

// An element of a tensor; encoded as kernels/src/convert/encode.rs does.
struct F32 {
    float bits;
    DEVICE static F32 of(float value) { return {value}; }
};
struct F16 {
    u16 bits;
    DEVICE static F16 of(float value) { return {half_bits(value)}; }
};
struct U8 {
    u8 bits;
    DEVICE static U8 of(float value) {
        value = value < 0.0f ? 0.0f : value;
        value = value > 255.0f ? 255.0f : value;
        return {u8(bits_of_float(value + TWO_23))};
    }
};

// Neighbours that one store writes.
template <class Element, int COUNT> struct alignas(sizeof(Element) * COUNT) Vector {
    Element lanes[COUNT];
};

// The first `count` of `lanes`: by one store where all are there and the address is whole.
template <class Element, int COUNT> DEVICE void store(Element *to, const Vector<Element, COUNT> &lanes, u32 count) {
    if (count == COUNT && u64(to) % sizeof lanes == 0) {
        *reinterpret_cast<Vector<Element, COUNT> *>(to) = lanes;
        return;
    }
    for (u32 i = 0; i < COUNT; ++i) {
        if (i < count) {
            to[i] = lanes.lanes[i];
        }
    }
}

template <class Element> DEVICE void store(Element *to, const Vector<Element, 1> &lanes, u32) {
    *to = lanes.lanes[0];
}

// The three channels of PIXELS pixels.
template <int PIXELS> struct Values {
    float of[3][PIXELS];
};

// The affine map of the three channels, in registers: the compiler could not know that the stores leave it alone.
struct Colour {
    float weights[3][3], constant[3], low[3], high[3], pad[3];

    DEVICE explicit Colour(const Plan &plan) {
        for (int c = 0; c < 3; ++c) {
            for (int k = 0; k < 3; ++k) {
                weights[c][k] = load(&plan.weights[c][k]);
            }
            constant[c] = load(&plan.constant[c]);
            low[c] = load(&plan.low[c]);
            high[c] = load(&plan.high[c]);
            pad[c] = load(&plan.pad[c]);
        }
    }

    // Without fused multiply-add on purpose: the same bits on every machine.
    DEVICE float channel(int c, float a, float b, float d) const {
        const float value = (a * weights[c][0] + b * weights[c][1]) + (d * weights[c][2] + constant[c]);
        return fminf(fmaxf(value, low[c]), high[c]);
    }

    template <int PIXELS> DEVICE Values<PIXELS> padding() const {
        Values<PIXELS> value;
        for (int k = 0; k < 3 * PIXELS; ++k) {
            value.of[k / PIXELS][k % PIXELS] = pad[k / PIXELS];
        }
        return value;
    }
};

// Writes the three channels of `count` pixels from x, y on.
template <class Element, bool PLANAR, int PIXELS>
DEVICE void put(Element *tensor, u32 width, u32 height, u32 x, u32 y, const Values<PIXELS> &value) {
    const u32 count = width - x;
    Vector<Element, PIXELS> out[3];
    for (int k = 0; k < 3 * PIXELS; ++k) {
        out[k / PIXELS].lanes[k % PIXELS] = Element::of(PLANAR ? value.of[k / PIXELS][k % PIXELS] : value.of[k % 3][k / 3]);
    }
    const u64 pixel = u64(y) * width + x;
    for (u32 c = 0; c < 3; ++c) {
        if (PLANAR) {
            store(tensor + c * (u64(width) * height) + pixel, out[c], count < PIXELS ? count : PIXELS);
        } else if (3 * count > c * PIXELS) {
            const u32 rest = 3 * count - c * PIXELS;
            store(tensor + 3 * pixel + c * PIXELS, out[c], rest < PIXELS ? rest : PIXELS);
        }
    }
}

template <class Sampler, class Element, bool PLANAR, int PIXELS, int ROWS>
DEVICE void strip(const Plan &plan, const u8 *source, Element *tensor, u32 x, u32 y) {
    const u32 width = load(&plan.width), height = load(&plan.height);
    const u32 left = load(&plan.left), top = load(&plan.top);
    const u32 placed_width = load(&plan.placed_width), placed_height = load(&plan.placed_height);
    const Colour colour(plan);
    const bool picture = y + ROWS > top && y < top + placed_height;
    if (!picture) {
        for (u32 r = 0; r < ROWS && y + r < height; ++r) {
            put<Element, PLANAR, PIXELS>(tensor, width, height, x, y + r, colour.template padding<PIXELS>());
        }
        return;
    }
    Sampler sampler;
    bool inside[PIXELS];
    const Tap *full_x = plan.taps_of(0), *half_x = plan.taps_of(2);
    for (u32 i = 0; i < PIXELS; ++i) {
        const u32 column = x + i - left; // left of the picture it wraps around, and is outside too
        inside[i] = column < placed_width;
        const u32 at = inside[i] ? column : 0;
        sampler.column(i, plan, load(full_x + at), load(half_x + at));
    }
    // rows of padding read a row of the picture, and do not use it: a strip that has both is rare
    const Tap *full_y = plan.taps_of(1), *half_y = plan.taps_of(3);
    constexpr u32 AT_ONCE = Sampler::ROWS_AT_ONCE;
    UNROLL(1)
    for (u32 r = 0; r < ROWS; r += AT_ONCE) {
        Tap full_tap[AT_ONCE], half_tap[AT_ONCE];
        UNROLL(AT_ONCE)
        for (u32 k = 0; k < AT_ONCE; ++k) {
            const u32 row = y + r + k - top, at = row < placed_height ? row : 0;
            full_tap[k] = load(full_y + at);
            half_tap[k] = load(half_y + at);
        }
        Samples<PIXELS> samples[AT_ONCE];
        UNROLL(AT_ONCE)
        for (u32 k = 0; k < AT_ONCE; ++k) {
            sampler.fetch(plan, source, full_tap[k], half_tap[k], samples[k]);
        }
        UNROLL(AT_ONCE)
        for (u32 k = 0; k < AT_ONCE; ++k) {
            float component[3][PIXELS];
            sampler.blend(samples[k], component);
            const bool shown = y + r + k - top < placed_height;
            Values<PIXELS> value;
            for (int c = 0; c < 3; ++c) {
                for (int i = 0; i < PIXELS; ++i) {
                    const float mapped = colour.channel(c, component[0][i], component[1][i], component[2][i]);
                    value.of[c][i] = shown && inside[i] ? mapped : colour.pad[c];
                }
            }
            if (y + r + k < height) {
                put<Element, PLANAR, PIXELS>(tensor, width, height, x, y + r + k, value);
            }
        }
    }
}

template <class Element, bool PLANAR, int PIXELS, int ROWS> DEVICE void convert(const Batch &batch) {
    const Frame &frame = batch.frames[blockIdx.z];
    const Plan &plan = *reinterpret_cast<const Plan *>(frame.plan);
    const u8 *source = reinterpret_cast<const u8 *>(frame.source);
    Element *tensor = reinterpret_cast<Element *>(frame.tensor);
    const u32 x = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS, y = blockIdx.y * ROWS;
    // the launch covers the largest tensor of the batch
    if (x >= load(&plan.width) || y >= load(&plan.height)) {
        return;
    }
    const u32 kind = load(&plan.kind);
    if (kind == NV12 && Nv12<PIXELS>::fits(plan, source)) {
        strip<Nv12<PIXELS>, Element, PLANAR, PIXELS, ROWS>(plan, source, tensor, x, y);
    } else if (kind != SAMPLES_16) {
        strip<Planes<u8, PIXELS>, Element, PLANAR, PIXELS, ROWS>(plan, source, tensor, x, y);
    } else {
        strip<Planes<u16, PIXELS>, Element, PLANAR, PIXELS, ROWS>(plan, source, tensor, x, y);
    }
}

// A row-interleaved tensor to planes: the last of the separate passes. The source is the tensor to lay out.
template <class Element, int PIXELS, int ROWS> DEVICE void planes(const Batch &batch) {
    const Frame &frame = batch.frames[blockIdx.z];
    const Plan &plan = *reinterpret_cast<const Plan *>(frame.plan);
    const Element *source = reinterpret_cast<const Element *>(frame.source);
    Element *tensor = reinterpret_cast<Element *>(frame.tensor);
    const u32 width = load(&plan.width), height = load(&plan.height);
    const u32 x = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS, y = blockIdx.y * ROWS;
    if (x >= width) {
        return;
    }
    for (u32 row = y; row < y + ROWS && row < height; ++row) {
        Vector<Element, PIXELS> out[3];
        for (u32 k = 0; k < 3 * PIXELS; ++k) {
            if (x + k / 3 < width) {
                const auto *from = source + 3 * (u64(row) * width + x) + k;
                out[k % 3].lanes[k / 3].bits = load(&from->bits);
            }
        }
        for (u32 c = 0; c < 3; ++c) {
            const u32 count = width - x;
            store(tensor + (u64(c) * height + row) * width + x, out[c], count < PIXELS ? count : PIXELS);
        }
    }
}
