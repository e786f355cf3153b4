// What updates of all parameters begin with: the norm of the gradients and the sizes of the weights. Every parameter is cut
// into chunks, and a block takes one.

struct Slot {
    float *weights;
    const float *gradient;
    // AdamW: the mean. Adafactor: the rows' means of squares, or all squares.
    float *first;
    // AdamW: the squares. Adafactor: the columns' means of squares, or null.
    float *second;
    // The weights in bf16 for products, or null.
    u16 *low;
    u64 size;
    // The first of its chunks, counted over all parameters.
    u64 chunk;
    // The elements of each chunk but the last.
    u64 length;
    // AdamW: whether the weights decay. Adafactor: the matrix's columns.
    u64 detail;
    // Adafactor: where the columns' partial sums begin.
    u64 scratch;
};

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
    u64 start = (blockIdx.x - slot.chunk) * slot.length, end = min(slot.size, start + slot.length);
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
