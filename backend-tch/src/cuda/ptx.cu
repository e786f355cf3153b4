// What CUDA C++ has no words for, in PTX. `emulator.h` has the same for CPUs.
//
// NVRTC compiles the kernels without any header, for the GPU at hand (compute capability 8.0 or newer).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The memory of a block, of the size it was launched with.
#define BLOCK_MEMORY(name) extern __shared__ __align__(1024) u8 name[]

// Two f32 rounded to bf16, the first in the low half.
__device__ __forceinline__ u32 pack_bf16(float low, float high)
{
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float rough_tanh(float x)
{
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes to shared memory, asynchronously; zeros if not `there`.
__device__ __forceinline__ void copy16(u32 to, const void *from, bool there)
{
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ __forceinline__ void copies_begun() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> __device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT)); }

struct Four {
    u32 x[4];
};

__device__ __forceinline__ Four read_four(u32 address)
{
    Four f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3]) : "r"(address) : "memory");
    return f;
}

__device__ __forceinline__ Four read_four_transposed(u32 address)
{
    Four f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3]) : "r"(address) : "memory");
    return f;
}

__device__ __forceinline__ void multiply(float (&c)[4], const Four &a, u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
}

#ifdef HOPPER
#define SUMS(c)                                                                                                                \
    "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]),    \
        "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]),               \
        "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]),               \
        "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]),               \
        "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
#define SUM_NAMES                                                                                                              \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"

// c += a · b for a warp group: a of registers, b [16, 64] of shared memory, the elements of its rows side by side.
__device__ __forceinline__ void multiply_group(float (&c)[8][4], const Four &a, u64 b)
{
    asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SUM_NAMES ", {%32,%33,%34,%35}, %36, p, 1, 1, 1; }"
                 : SUMS(c) : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// The same with a [64, 16] of shared memory, and of b the elements of its columns side by side.
__device__ __forceinline__ void multiply_group(float (&c)[8][4], u64 a, u64 b)
{
    asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SUM_NAMES ", %32, %33, p, 1, 1, 0, 0; }"
                 : SUMS(c) : "l"(a), "l"(b));
}

// Products go on by themselves between `begin_products` and `end_products`. What they read and add to must not be moved in there by
// the compiler, which does not know.
template <int COUNT> __device__ __forceinline__ void hold(float (&c)[COUNT][4])
{
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
}
template <int COUNT> __device__ __forceinline__ void hold(Four (&a)[COUNT])
{
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        asm volatile("" : "+r"(a[n].x[0]), "+r"(a[n].x[1]), "+r"(a[n].x[2]), "+r"(a[n].x[3])::"memory");
}
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void end_products()
{
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
}
// What was copied becomes visible to wgmma.
__device__ __forceinline__ void show_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
template <typename T> __device__ __forceinline__ void hold(T &) {}
__device__ __forceinline__ void begin_products() {}
__device__ __forceinline__ void end_products() {}
__device__ __forceinline__ void show_copies() {}
#endif
