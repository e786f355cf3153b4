// Gated GELU (the tanh approximation) and dropout. A thread takes four neighbouring elements; widths and strides are multiples
// of 4. The gate and the value may be halves of one row: `stride` is the distance of rows.

__device__ __forceinline__ float tanh_of(float x)
{
#ifdef BF16
    return rough_tanh(x); // exact to 11 bits, of which bf16 keeps 8
#else
    return tanhf(x);
#endif
}

#define ROOT_2_OVER_PI 0.7978845608028654f
#define CUBIC 0.044715f

__device__ __forceinline__ float gelu(float x)
{
    return 0.5f * x * (1.0f + tanh_of(ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
}

// gelu'(x), and gelu(x) beside it.
__device__ __forceinline__ float2 gelu_gradient(float x)
{
    float t = tanh_of(ROOT_2_OVER_PI * (x + CUBIC * x * x * x));
    float half = 0.5f * (1.0f + t);
    float slope = half + 0.5f * x * (1.0f - t * t) * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * x * x);
    return make_float2(slope, x * half);
}

extern "C" __global__ void __launch_bounds__(256) gated_gelu_forward(
    const Element *gate, const Element *value, long long stride, Element *y, long long rows, int width)
{
    long long index = 4 * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
    if (index >= rows * width) return;
    long long row = index / width;
    long long at = row * stride + (index - row * width);
    float4 g = load4(gate + at), v = load4(value + at);
    store4(y + index, make_float4(gelu(g.x) * v.x, gelu(g.y) * v.y, gelu(g.z) * v.z, gelu(g.w) * v.w));
}

extern "C" __global__ void __launch_bounds__(256) gated_gelu_backward(
    const Element *dy, const Element *gate, const Element *value, long long stride, Element *dgate, Element *dvalue,
    long long gradient_stride, long long rows, int width)
{
    long long index = 4 * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
    if (index >= rows * width) return;
    long long row = index / width;
    long long at = row * stride + (index - row * width), to = row * gradient_stride + (index - row * width);
    float4 d = load4(dy + index), g = load4(gate + at), v = load4(value + at);
    float2 x = gelu_gradient(g.x), y = gelu_gradient(g.y), z = gelu_gradient(g.z), w = gelu_gradient(g.w);
    store4(dgate + to, make_float4(d.x * v.x * x.x, d.y * v.y * y.x, d.z * v.z * z.x, d.w * v.w * w.x));
    store4(dvalue + to, make_float4(d.x * x.y, d.y * y.y, d.z * z.y, d.w * w.y));
}

// y = x · factor, with the factors of `DropoutDraw`: block `example << 32 | i` of Philox decides over 8 elements of an
// example, 16 bits over each. `size` is the number of elements of an example.
template <class Type, class Read, class Write>
__device__ __forceinline__ void drop(
    const Type *x, Type *y, u32 key0, u32 key1, u32 threshold, float keep, long long first, long long size, long long examples,
    Read read, Write write)
{
    long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, blocks = (size + 7) / 8;
    long long example = thread / blocks, block = thread - example * blocks;
    if (example >= examples) return;
    uint4 words = philox((u64)(first + example) << 32 | (u64)block, make_uint2(key0, key1));
    u32 word[4] = {words.x, words.y, words.z, words.w};
    for (int i = 0; i < 8 && 8 * block + i < size; i++) {
        u32 draw = i & 1 ? word[i / 2] >> 16 : word[i / 2] & 0xFFFF;
        long long at = example * size + 8 * block + i;
        float value = x ? read(x[at]) : 1.0f;
        y[at] = write(draw < threshold ? 0.0f : value * keep);
    }
}

extern "C" __global__ void __launch_bounds__(256) dropout_f32(
    const float *x, float *y, u32 key0, u32 key1, u32 threshold, float keep, long long first, long long size, long long examples)
{
    auto same = [](float value) { return value; };
    drop(x, y, key0, key1, threshold, keep, first, size, examples, same, same);
}

extern "C" __global__ void __launch_bounds__(256) dropout_bf16(
    const u16 *x, u16 *y, u32 key0, u32 key1, u32 threshold, float keep, long long first, long long size, long long examples)
{
    drop(x, y, key0, key1, threshold, keep, first, size, examples, from_bf16, to_bf16);
}
