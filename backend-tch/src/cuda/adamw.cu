// AdamW, and AdamWScale, of all parameters in three launches. Every parameter is cut into chunks; a block takes one.

struct Slot {
    float *weights;
    const float *gradient;
    float *mean;
    float *squares;
    // The weights in bf16 for products, or null.
    u16 *low;
    u64 size;
    // The first of its chunks, counted over all parameters.
    u64 chunk;
    u64 decays;
};

#define CHUNK 32768

__device__ __forceinline__ int slot_of(const Slot *slots, int count, u64 chunk)
{
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (slots[middle].chunk <= chunk) low = middle;
        else high = middle - 1;
    }
    return low;
}

// The sum of a block of 256 threads, to thread 0, always in the same order.
__device__ __forceinline__ float block_sum(float x)
{
    __shared__ float sums[8];
    __syncthreads();
    x = warp_sum(x);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += sums[i];
    return sum;
}

// partial[chunk] = the sums of squares of its gradient and, if `relative`, of its weights.
extern "C" __global__ void __launch_bounds__(256) measure(const Slot *slots, int count, int relative, float2 *partial)
{
    Slot slot = slots[slot_of(slots, count, blockIdx.x)];
    u64 start = (blockIdx.x - slot.chunk) * CHUNK, end = min(slot.size, start + CHUNK);
    float gradient = 0, weights = 0;
    for (u64 i = start + threadIdx.x; i < end; i += blockDim.x) {
        gradient += slot.gradient[i] * slot.gradient[i];
        if (relative) weights += slot.weights[i] * slot.weights[i];
    }
    gradient = block_sum(gradient);
    weights = block_sum(weights);
    if (threadIdx.x == 0) partial[blockIdx.x] = make_float2(gradient, weights);
}

// From these: stats = [gradient norm, factor of the gradient, 1 if the update happens], and each parameter's scale. Without a finite
// norm nothing is updated, nor later: `healthy` stays 0 until the host has seen it. `limit` is the norm to clip to, or negative.
extern "C" __global__ void __launch_bounds__(256) decide(
    const Slot *slots, int count, const float2 *partial, long long chunks, float limit, int relative, double *healthy,
    double *stats, float *scales)
{
    __shared__ double sums[256];
    double sum = 0;
    for (long long i = threadIdx.x; i < chunks; i += 256) sum += partial[i].x;
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double squared = 0;
        for (int i = 0; i < 256; i++) squared += sums[i];
        double norm = sqrt(squared);
        stats[0] = norm;
        double factor = limit < 0 ? 1.0 : limit / (norm + 1e-6);
        stats[1] = factor < 1.0 ? factor : 1.0;
        stats[2] = *healthy = isfinite(norm) && *healthy == 1.0 ? 1.0 : 0.0;
    }
    if (!relative) return;
    for (int i = threadIdx.x; i < count; i += 256) {
        double squares = 0;
        u64 end = i + 1 < count ? slots[i + 1].chunk : (u64)chunks;
        for (u64 chunk = slots[i].chunk; chunk < end; chunk++) squares += partial[chunk].y;
        scales[i] = fmaxf(1e-3f, (float)sqrt(squares / slots[i].size));
    }
}

struct Step {
    float beta1, rest1, beta2, rest2, step, epsilon;
    // Factor of the weights where they decay: before the update, and after it.
    float before, after;
};

extern "C" __global__ void __launch_bounds__(256) update(
    const Slot *slots, int count, Step step, const double *stats, const float *scales, int relative)
{
    if (stats[2] == 0.0) return;
    int index = slot_of(slots, count, blockIdx.x);
    Slot slot = slots[index];
    float factor = (float)stats[1], before = slot.decays ? step.before : 1.0f, after = slot.decays ? step.after : 1.0f;
    float rate = step.step * (relative ? scales[index] : 1.0f);
    u64 start = (blockIdx.x - slot.chunk) * CHUNK, end = min(slot.size, start + CHUNK);
    // Allocations are aligned; a part of a fused gradient may begin anywhere.
    bool aligned = ((u64)slot.weights | (u64)slot.gradient | (u64)slot.mean | (u64)slot.squares | (u64)slot.low) % 16 == 0;
    u64 whole = aligned ? start + (end - start) / 4 * 4 : start;
    auto one = [&](float w, float g, float &m, float &v) {
        g *= factor;
        m = step.beta1 * m + step.rest1 * g;
        v = step.beta2 * v + step.rest2 * (g * g);
        return (w * before - rate * m / (sqrtf(v) + step.epsilon)) * after;
    };
    for (u64 i = start + 4 * threadIdx.x; i < whole; i += 4 * blockDim.x) {
        float4 w = *(float4 *)(slot.weights + i), g = *(const float4 *)(slot.gradient + i);
        float4 m = *(float4 *)(slot.mean + i), v = *(float4 *)(slot.squares + i);
        w.x = one(w.x, g.x, m.x, v.x);
        w.y = one(w.y, g.y, m.y, v.y);
        w.z = one(w.z, g.z, m.z, v.z);
        w.w = one(w.w, g.w, m.w, v.w);
        *(float4 *)(slot.weights + i) = w;
        *(float4 *)(slot.mean + i) = m;
        *(float4 *)(slot.squares + i) = v;
        if (slot.low) *(uint2 *)(slot.low + i) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
    }
    for (u64 i = whole + threadIdx.x; i < end; i += blockDim.x) {
        float m = slot.mean[i], v = slot.squares[i];
        float w = one(slot.weights[i], slot.gradient[i], m, v);
        slot.weights[i] = w;
        slot.mean[i] = m;
        slot.squares[i] = v;
        if (slot.low) slot.low[i] = to_bf16(w);
    }
}
