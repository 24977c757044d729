// Of the candidates of a detector's output, those that can become boxes are copied side by side, as f32, with their places.
// Two launches in one stream: `find` notes the places, in any order, and `gather` copies the numbers.
//
// The output is f32 or f16 without gaps, frame after frame; a candidate's numbers are neighbours (a row) or one in each
// plane: two steps say which. It is not written meanwhile. Blocks z of the grid are frames. The counts are zero before
// `find`. Where a frame has more candidates than there is room for, the count says so, and nothing is copied.
#pragma once

#include "plan.cuh"

// What both launches are told, as kernels/src/cuda/candidates.rs writes it.
struct Candidates {
    // the output of the first frame
    u64 output;
    // of each frame: how many candidates were found; and 1 where the largest number of one that was left out is outside 0 to 1
    u64 counts;
    // of each frame: `room` places, then `room` rows of `numbers` f32
    u64 kept;
    // of a frame, and of a candidate
    u32 candidates, numbers;
    // elements from a candidate to the next, and from a number of one to its next
    u32 candidate_step, number_step;
    // the numbers of which the largest decides
    u32 first, end;
    u32 room;
    // threads of a frame in `gather`
    u32 threads;
    // a candidate is left out where its largest number is in [from, below)
    float from, below;
};

static_assert(sizeof(Candidates) == 64, "kernels/src/cuda/candidates.rs writes it so");

struct Single {
    float value;
    DEVICE static float at(const Single *from) { return load(&from->value); }
};

struct Half {
    u16 bits;
    DEVICE static float at(const Half *from) { return float_of_half(load(&from->bits)); }
};

DEVICE u32 *counts_of(const Candidates &c) { return reinterpret_cast<u32 *>(c.counts) + 2 * blockIdx.z; }

DEVICE u32 *places_of(const Candidates &c) {
    return reinterpret_cast<u32 *>(c.kept) + u64(blockIdx.z) * c.room * (1 + c.numbers);
}

template <class Number> DEVICE const Number *output_of(const Candidates &c) {
    return reinterpret_cast<const Number *>(c.output) + u64(blockIdx.z) * c.candidates * c.numbers;
}

// A thread for each candidate.
template <class Number> DEVICE void find(const Candidates &c) {
    const u32 place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= c.candidates) {
        return;
    }
    const Number *numbers = output_of<Number>(c) + u64(place) * c.candidate_step;
    const u32 infinite = 0x7f800000;
    float largest = float_of_bits(0x80000000 | infinite);
    UNROLL(8)
    for (u32 n = c.first; n < c.end; ++n) {
        const float number = Number::at(numbers + u64(n) * c.number_step);
        // NaN never wins
        largest = number > largest ? number : largest;
    }
    u32 *counts = counts_of(c);
    if ((bits_of_float(largest) & infinite) != infinite && largest >= c.from && largest < c.below) {
        if (largest < 0.0f || largest > 1.0f) {
            counts[1] = 1; // every thread that comes here writes the same
        }
        return;
    }
    const u32 slot = count_up(counts);
    if (slot < c.room) {
        places_of(c)[slot] = place;
    }
}

// `threads` threads share the numbers of the candidates that were found.
template <class Number> DEVICE void gather(const Candidates &c) {
    const u32 found = load(counts_of(c));
    const u32 *places = places_of(c);
    float *rows = reinterpret_cast<float *>(places_of(c) + c.room);
    const u32 all = found > c.room ? 0 : found * c.numbers;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += c.threads) {
        const u32 slot = i / c.numbers, n = i % c.numbers;
        const u64 element = u64(load(places + slot)) * c.candidate_step + u64(n) * c.number_step;
        rows[i] = Number::at(output_of<Number>(c) + element);
    }
}
