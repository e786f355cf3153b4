// Softmax cross-entropy of a row of logits, differentiated in place. A block takes a row.

struct Best {
    float value;
    int index;
};

__device__ __forceinline__ Best better(Best a, Best b)
{
    // The first of equal ones.
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

// losses[row] = log Z - logit[label] and corrects[row] = 1 if the largest logit is the label's; both 0 where the label is negative.
// The logits become d/dlogit = scale · (p · (1 + 2 · z_loss · log Z) - [label]) if `differentiate`.
extern "C" __global__ void __launch_bounds__(512) cross_entropy(
    Element *logits, const int *labels, float scale, float z_loss, int differentiate, float *losses, float *corrects,
    int vocabulary)
{
    __shared__ float maxima[16], sums[16];
    __shared__ Best bests[16];
    long long row = blockIdx.x;
    Element *z = logits + row * vocabulary;
    int label = labels[row], lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (label < 0) {
        if (differentiate)
            for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) store(z + i, 0.0f);
        if (threadIdx.x == 0) losses[row] = corrects[row] = 0.0f;
        return;
    }
    float maximum = __int_as_float(0xFF800000), sum = 0;
    Best best = {maximum, 0x7FFFFFFF};
#if VARIANT // rows of whole vectors
    for (int i = 4 * threadIdx.x; i < vocabulary; i += 4 * blockDim.x) {
        float4 v = load4(z + i);
        float largest = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
        if (largest > best.value)
            best = {largest, i + (v.x == largest ? 0 : v.y == largest ? 1 : v.z == largest ? 2 : 3)};
        float now = fmaxf(maximum, largest);
        sum = sum * __expf(maximum - now) + __expf(v.x - now) + __expf(v.y - now) + __expf(v.z - now) + __expf(v.w - now);
        maximum = now;
    }
#else
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        float v = load(z + i);
        if (v > best.value) best = {v, i};
        float now = fmaxf(maximum, v);
        sum = sum * __expf(maximum - now) + __expf(v - now);
        maximum = now;
    }
#endif
    float whole = maximum;
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) whole = fmaxf(whole, __shfl_xor_sync(0xFFFFFFFFu, whole, offset));
    // A thread without an element has a sum of 0 and a maximum of -inf, from which nothing may be subtracted.
    sum = warp_sum(maximum == whole ? sum : sum * __expf(maximum - whole));
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        Best other = {__shfl_xor_sync(0xFFFFFFFFu, best.value, offset), __shfl_xor_sync(0xFFFFFFFFu, best.index, offset)};
        best = better(best, other);
    }
    if (lane == 0) {
        maxima[warp] = whole;
        sums[warp] = sum;
        bests[warp] = best;
    }
    __syncthreads();
    maximum = maxima[0];
    best = bests[0];
    int warps = blockDim.x / 32;
    for (int i = 1; i < warps; i++) {
        maximum = fmaxf(maximum, maxima[i]);
        best = better(best, bests[i]);
    }
    sum = 0;
    for (int i = 0; i < warps; i++) sum += maxima[i] == maximum ? sums[i] : sums[i] * __expf(maxima[i] - maximum);
    float log_z = maximum + logf(sum);
    if (threadIdx.x == 0) {
        losses[row] = log_z - load(z + label);
        corrects[row] = best.index == label ? 1.0f : 0.0f;
    }
    if (!differentiate) return;
    __syncthreads(); // the label's logit has been read
    float factor = scale * (1.0f + 2.0f * z_loss * log_z);
#if VARIANT // rows of whole vectors
    for (int i = 4 * threadIdx.x; i < vocabulary; i += 4 * blockDim.x) {
        float4 v = load4(z + i);
        float4 d = make_float4(factor * __expf(v.x - log_z), factor * __expf(v.y - log_z), factor * __expf(v.z - log_z),
                               factor * __expf(v.w - log_z));
        if (label == i) d.x -= scale;
        if (label == i + 1) d.y -= scale;
        if (label == i + 2) d.z -= scale;
        if (label == i + 3) d.w -= scale;
        store4(z + i, d);
    }
#else
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x)
        store(z + i, factor * __expf(load(z + i) - log_z) - (label == i ? scale : 0.0f));
#endif
}
