// AdamW, and AdamWScale, of all parameters in one launch after those of `update.cu`.

struct Step {
    float beta1, rest1, beta2, rest2, step, epsilon;
    // Factor of the weights where they decay: before the update, and after it.
    float before, after;
};

extern "C" __global__ void __launch_bounds__(256) adamw(
    const Slot *slots, int count, Step step, const double *stats, const float *scales, int relative)
{
    if (stats[2] == 0.0) return;
    int index = slot_of(slots, count, blockIdx.x);
    Slot slot = slots[index];
    float factor = (float)stats[1], before = slot.detail ? step.before : 1.0f, after = slot.detail ? step.after : 1.0f;
    float rate = step.step * (relative ? scales[index] : 1.0f);
    u64 start = (blockIdx.x - slot.chunk) * slot.length, end = min(slot.size, start + slot.length);
    // Allocations are aligned; a part of a fused gradient may begin anywhere.
    bool aligned = ((u64)slot.weights | (u64)slot.gradient | (u64)slot.first | (u64)slot.second | (u64)slot.low) % 16 == 0;
    u64 whole = aligned ? start + (end - start) / 4 * 4 : start;
    auto one = [&](float w, float g, float &m, float &v) {
        g *= factor;
        m = step.beta1 * m + step.rest1 * g;
        v = step.beta2 * v + step.rest2 * (g * g);
        return (w * before - rate * m / (sqrtf(v) + step.epsilon)) * after;
    };
    for (u64 i = start + 4 * threadIdx.x; i < whole; i += 4 * blockDim.x) {
        float4 w = *(float4 *)(slot.weights + i), g = *(const float4 *)(slot.gradient + i);
        float4 m = *(float4 *)(slot.first + i), v = *(float4 *)(slot.second + i);
        w.x = one(w.x, g.x, m.x, v.x);
        w.y = one(w.y, g.y, m.y, v.y);
        w.z = one(w.z, g.z, m.z, v.z);
        w.w = one(w.w, g.w, m.w, v.w);
        *(float4 *)(slot.weights + i) = w;
        *(float4 *)(slot.first + i) = m;
        *(float4 *)(slot.second + i) = v;
        if (slot.low) *(uint2 *)(slot.low + i) = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
    }
    for (u64 i = whole + threadIdx.x; i < end; i += blockDim.x) {
        float m = slot.first[i], v = slot.second[i];
        float w = one(slot.weights[i], slot.gradient[i], m, v);
        slot.weights[i] = w;
        slot.first[i] = m;
        slot.second[i] = v;
        if (slot.low) slot.low[i] = to_bf16(w);
    }
}
