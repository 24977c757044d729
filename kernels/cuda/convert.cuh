// The fused pass: frames of any size and format to letterboxed, normalized tensors; kernels/src/convert is the same
// on a CPU, and gives the same bits.
//
// In: frames that plan.cuh describes, any pitch, alignment, crop and odd size; nothing beyond a plane's last sample is
// read. Out: contiguous tensors that begin at a multiple of their element's bytes. `convert` writes each element that shows the picture once and
// no other; `pad` writes the others. Not in place. A launch is ordered by its stream alone: no shared memory, no barrier,
// no atomics. No status: the launcher has checked it all.
//
// A block is a strip of ROWS rows of the picture of frame blockIdx.z, a thread PIXELS neighbours along x in each of
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

// The weighted sum of two samples: exact for 8 bits, rounded once for 16.
template <class Sample> DEVICE float across(const u8 *row, const Pair &pair);

// At most 255 * 2^14, below 2^23: no conversion, which takes a GPU four times as long.
DEVICE float exact(u32 sum_in_bits) { return float_of_bits(sum_in_bits) - TWO_23; }

template <> DEVICE float across<u8>(const u8 *row, const Pair &pair) {
    const u32 bytes = pick_bytes(load(row + pair.first), load(row + pair.second), 0x0040);
    return exact(dot_low(pair.weights, bytes, TWO_23_BITS));
}

template <> DEVICE float across<u16>(const u8 *row, const Pair &pair) {
    // byte by byte: any alignment
    const u32 first = load(row + pair.first) | u32(load(row + pair.first + 1)) << 8;
    const u32 second = load(row + pair.second) | u32(load(row + pair.second + 1)) << 8;
    return float(int(first * (pair.weights & 0xffff) + second * (pair.weights >> 16)));
}

// Components 0, 1 and 2 of PIXELS columns, row by row; each component is read by itself.
template <class Sample, int PIXELS> struct Planes {
    static constexpr int ROWS_AT_ONCE = 1;
    Pair full[PIXELS], half[PIXELS];

    DEVICE void column(int i, const Plan &plan, Tap full_tap, Tap half_tap) {
        full[i] = Pair(full_tap, load(&plan.step_bytes[0]));
        half[i] = Pair(half_tap, load(&plan.step_bytes[1]));
    }

    DEVICE void row(const Plan &plan, const u8 *source, Tap full_tap, Tap half_tap, float out[3][PIXELS]) const {
        for (int c = 0; c < 3; ++c) {
            const Rows rows(c == 0 ? full_tap : half_tap, source + load(&plan.offset_bytes[c]),
                            load(&plan.pitch_bytes[c]));
            component(rows, c == 0 ? full : half, out[c]);
        }
    }

    DEVICE static void component(const Rows &rows, const Pair *pairs, float *out) {
        for (int i = 0; i < PIXELS; ++i) {
            out[i] = across<Sample>(rows.first, pairs[i]);
        }
        if (rows.weight != 0.0f) {
            for (int i = 0; i < PIXELS; ++i) {
                out[i] += (across<Sample>(rows.second, pairs[i]) - out[i]) * rows.weight;
            }
        }
    }
};

// The next row's loads are on their way while this one is computed; ptx/build.py --tune tries other numbers.
#ifndef NV12_ROWS_AT_ONCE
#define NV12_ROWS_AT_ONCE 2
#endif

// NV12 whose chroma lies on even addresses: Cb and Cr by one load.
template <int PIXELS> struct Nv12 : Planes<u8, PIXELS> {
    static constexpr int ROWS_AT_ONCE = NV12_ROWS_AT_ONCE;

    DEVICE static bool fits(const Plan &plan, const u8 *source) {
        return ((u64(source) + load(&plan.offset_bytes[1])) % 2 | load(&plan.pitch_bytes[1]) % 2) == 0;
    }

    DEVICE void row(const Plan &plan, const u8 *source, Tap full_tap, Tap half_tap, float out[3][PIXELS]) const {
        const Rows luma(full_tap, source + load(&plan.offset_bytes[0]), load(&plan.pitch_bytes[0]));
        const Rows rows(half_tap, source + load(&plan.offset_bytes[1]), load(&plan.pitch_bytes[1]));
        this->component(luma, this->full, out[0]);
        for (int i = 0; i < PIXELS; ++i) {
            chroma(rows.first, i, out[1][i], out[2][i]);
        }
        if (rows.weight != 0.0f) {
            for (int i = 0; i < PIXELS; ++i) {
                float cb, cr;
                chroma(rows.second, i, cb, cr);
                out[1][i] += (cb - out[1][i]) * rows.weight;
                out[2][i] += (cr - out[2][i]) * rows.weight;
            }
        }
    }

    DEVICE void chroma(const u8 *row, int i, float &cb, float &cr) const {
        const Pair &pair = this->half[i];
        const u32 first = load(reinterpret_cast<const u16 *>(row + pair.first));
        const u32 second = load(reinterpret_cast<const u16 *>(row + pair.second));
        const u32 bytes = pick_bytes(first, second, 0x5140); // Cb, Cb, Cr, Cr
        cb = exact(dot_low(pair.weights, bytes, TWO_23_BITS));
        cr = exact(dot_high(pair.weights, bytes, TWO_23_BITS));
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
    if (count >= COUNT && u64(to) % sizeof lanes == 0) {
        *reinterpret_cast<Vector<Element, COUNT> *>(to) = lanes;
        return;
    }
    for (u32 i = 0; i < COUNT; ++i) {
        if (i < count) {
            to[i] = lanes.lanes[i];
        }
    }
}

// The affine map of the three channels, in registers: the compiler could not know that the stores leave it alone.
struct Colour {
    // as they are in the plan: weights, constants, lower and upper bounds
    float numbers[18];

    DEVICE explicit Colour(const Plan &plan) {
        for (int i = 0; i < 9; ++i) {
            const u64 pair = load_pair(&plan.weights[0][0], i);
            numbers[2 * i] = float_of_bits(lower_half(pair));
            numbers[2 * i + 1] = float_of_bits(upper_half(pair));
        }
    }

    // Without fused multiply-add on purpose: the same bits on every machine.
    DEVICE float channel(int c, float a, float b, float d) const {
        const float *weights = numbers + 3 * c;
        const float value = (a * weights[0] + b * weights[1]) + (d * weights[2] + numbers[9 + c]);
        return fminf(fmaxf(value, numbers[12 + c]), numbers[15 + c]);
    }
};

// The size of a tensor and the part of it that shows the picture.
struct Place {
    u32 width, height, left, top, placed_width, placed_height;

    DEVICE explicit Place(const Plan &plan) {
        const u64 size = load_pair(&plan.width, 0), corner = load_pair(&plan.width, 1), placed = load_pair(&plan.width, 2);
        width = lower_half(size), height = upper_half(size);
        left = lower_half(corner), top = upper_half(corner);
        placed_width = lower_half(placed), placed_height = upper_half(placed);
    }
};

// Writes the three channels of the first `count` of PIXELS pixels from x, y of the tensor on.
template <class Element, bool PLANAR, int PIXELS>
DEVICE void put(Element *tensor, const Place &place, u32 x, u32 y, const float value[3][PIXELS], u32 count) {
    Vector<Element, PIXELS> out[3];
    for (int k = 0; k < 3 * PIXELS; ++k) {
        out[k / PIXELS].lanes[k % PIXELS] = Element::of(PLANAR ? value[k / PIXELS][k % PIXELS] : value[k % 3][k / 3]);
    }
    const u64 pixel = u64(y) * place.width + x, plane = u64(place.width) * place.height;
    for (u32 c = 0; c < 3; ++c) {
        if (PLANAR) {
            store(tensor + c * plane + pixel, out[c], count);
        } else if (3 * count > c * PIXELS) {
            store(tensor + 3 * pixel + c * PIXELS, out[c], 3 * count - c * PIXELS);
        }
    }
}

template <class Sampler, class Element, bool PLANAR, int PIXELS, int ROWS>
DEVICE void strip(const Plan &plan, const u8 *source, Element *tensor, const Place &place, u32 x, u32 y) {
    const Colour colour(plan);
    Sampler sampler;
    const Tap *full_x = plan.taps_of(0), *full_y = plan.taps_of(1), *half_x = plan.taps_of(2), *half_y = plan.taps_of(3);
    for (u32 i = 0; i < PIXELS; ++i) {
        const u32 column = x + i < place.placed_width ? x + i : x;
        sampler.column(i, plan, load(full_x + column), load(half_x + column));
    }
    UNROLL(Sampler::ROWS_AT_ONCE)
    for (u32 r = 0; r < ROWS; ++r) {
        if (y + r >= place.placed_height) {
            return;
        }
        float component[3][PIXELS], value[3][PIXELS];
        sampler.row(plan, source, load(full_y + y + r), load(half_y + y + r), component);
        for (int c = 0; c < 3; ++c) {
            for (int i = 0; i < PIXELS; ++i) {
                value[c][i] = colour.channel(c, component[0][i], component[1][i], component[2][i]);
            }
        }
        put<Element, PLANAR, PIXELS>(tensor, place, place.left + x, place.top + y + r, value, place.placed_width - x);
    }
}

template <class Element, bool PLANAR, int PIXELS, int ROWS> DEVICE void convert(const Batch &batch) {
    const Frame &frame = batch.frames[blockIdx.z];
    const Plan &plan = *reinterpret_cast<const Plan *>(frame.plan);
    const u8 *source = reinterpret_cast<const u8 *>(frame.source);
    Element *tensor = reinterpret_cast<Element *>(frame.tensor);
    const u32 x = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS, y = blockIdx.y * ROWS;
    const Place place(plan);
    // the launch covers the largest picture of the batch
    if (x >= place.placed_width || y >= place.placed_height) {
        return;
    }
    const u32 kind = load(&plan.kind);
    if (kind == NV12 && Nv12<PIXELS>::fits(plan, source)) {
        strip<Nv12<PIXELS>, Element, PLANAR, PIXELS, ROWS>(plan, source, tensor, place, x, y);
    } else if (kind != SAMPLES_16) {
        strip<Planes<u8, PIXELS>, Element, PLANAR, PIXELS, ROWS>(plan, source, tensor, place, x, y);
    } else {
        strip<Planes<u16, PIXELS>, Element, PLANAR, PIXELS, ROWS>(plan, source, tensor, place, x, y);
    }
}

// What of a tensor shows no picture.
template <class Element, bool PLANAR, int PIXELS, int ROWS> DEVICE void pad(const Batch &batch) {
    const Frame &frame = batch.frames[blockIdx.z];
    const Plan &plan = *reinterpret_cast<const Plan *>(frame.plan);
    Element *tensor = reinterpret_cast<Element *>(frame.tensor);
    const Place place(plan);
    const u32 x = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS, y = blockIdx.y * ROWS;
    if (x >= place.width) {
        return;
    }
    float value[3][PIXELS];
    for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < PIXELS; ++i) {
            value[c][i] = load(&plan.pad[c]);
        }
    }
    for (u32 row = y; row < y + ROWS && row < place.height; ++row) {
        // above and left of the picture a difference wraps around, and is outside too
        if (row - place.top >= place.placed_height) {
            put<Element, PLANAR, PIXELS>(tensor, place, x, row, value, place.width - x);
            continue;
        }
        for (u32 i = 0; i < PIXELS && x + i < place.width; ++i) {
            if (x + i - place.left >= place.placed_width) {
                const float one[3][1] = {{value[0][i]}, {value[1][i]}, {value[2][i]}};
                put<Element, PLANAR, 1>(tensor, place, x + i, row, one, 1);
            }
        }
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
            store(tensor + (u64(c) * height + row) * width + x, out[c], width - x);
        }
    }
}
