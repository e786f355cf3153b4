// What all kernels share, after the instructions of the GPU (`ptx.cu`) or of the emulator (`emulator.h`).
//
// `Element` is what activations between the residual stream's norms are stored in: bf16 if BF16 is defined, else f32.

__device__ __forceinline__ float from_bf16(u16 bits) { return __uint_as_float((u32)bits << 16); }

__device__ __forceinline__ u16 to_bf16(float x) { return (u16)pack_bf16(x, 0.0f); }

#ifdef BF16
typedef u16 Element;

__device__ __forceinline__ float load(const Element *p) { return from_bf16(*p); }
__device__ __forceinline__ void store(Element *p, float x) { *p = to_bf16(x); }

__device__ __forceinline__ float4 load4(const Element *p)
{
    uint2 v = *(const uint2 *)p;
    return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xFFFF0000u),
                       __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xFFFF0000u));
}

__device__ __forceinline__ void store4(Element *p, float4 x)
{
    *(uint2 *)p = make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
}
#else
typedef float Element;

__device__ __forceinline__ float load(const Element *p) { return *p; }
__device__ __forceinline__ void store(Element *p, float x) { *p = x; }
__device__ __forceinline__ float4 load4(const Element *p) { return *(const float4 *)p; }
__device__ __forceinline__ void store4(Element *p, float4 x) { *(float4 *)p = x; }
#endif

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
    return x;
}

// Philox4x32-10, as in fusion-core's `random.rs`.
__device__ __forceinline__ uint4 philox(u64 index, uint2 key)
{
    uint4 c = make_uint4((u32)index, (u32)(index >> 32), 0, 0);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        if (round > 0) key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
        u32 a_high = __umulhi(c.x, 0xD2511F53u), a_low = c.x * 0xD2511F53u;
        u32 b_high = __umulhi(c.z, 0xCD9E8D57u), b_low = c.z * 0xCD9E8D57u;
        c = make_uint4(b_high ^ c.y ^ key.x, b_low, a_high ^ c.w ^ key.y, a_low);
    }
    return c;
}
