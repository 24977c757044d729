// A plane as it is shown: mirrored and turned on the way. A thread for each sample of what is shown; the stored plane is not
// written meanwhile.
#pragma once

#include "plan.cuh"

// What a launch is told, as kernels/src/cuda/turn.rs writes it.
struct Turn {
    // the sample that is shown at the upper left, and where it goes
    u64 from, to;
    // bytes in the stored plane for a step to the right, and a step down, in what is shown
    long long right_bytes, down_bytes;
    u32 to_pitch_bytes;
    // of what is shown, in samples
    u32 width, height;
};

static_assert(sizeof(Turn) == 48, "kernels/src/cuda/turn.rs writes it so");

template <class Sample> DEVICE void turn(const Turn &t) {
    const u32 x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= t.width || y >= t.height) {
        return;
    }
    const u64 from = t.from + u64(x * t.right_bytes + y * t.down_bytes);
    const u64 to = t.to + u64(y) * t.to_pitch_bytes + x * sizeof(Sample);
    *reinterpret_cast<Sample *>(to) = load(reinterpret_cast<const Sample *>(from));
}
