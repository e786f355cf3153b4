// Tiles of 64 positions of a head in shared memory, and the products of warps with them.
//
// A block takes ROWS queries (or, for the gradients of keys and values, as many keys) of a head, a warp 16 of them, and walks over
// the other side 64 at a time. Products are of bf16 with sums in f32: mma.m16n8k16, or wgmma.m64n64k16 on Hopper (if HOPPER is
// defined), whose four warps read the right factor from shared memory together. In what follows a lane is 4 · g + t. It holds of
//   A [16, 16]: rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9;   B [16, 8]: the same rows 2t … of column g;
//   C [16, 8]: rows g and g + 8, columns 2t and 2t + 1.
// No sum depends on the order in which blocks run.

#define ROWS 64
#define TILE 64
#define HEAD 64
#define LOG2E 1.4426950408889634f
#define MINUS_INFINITY __int_as_float(0xFF800000)

struct Shape {
    int heads, queries, keys;
    // Features of a head: a multiple of 8, at most HEAD.
    int features;
    // Key i is visible to query j if i <= j + keys - queries.
    int causal;
    // Examples that a block of `attention_dq` takes, one after the other.
    int group;
    int batch;
    // The factor of kept probabilities, with dropout.
    float keep;
    // Distances of examples and of positions, in elements; heads lie side by side.
    long long q_batch, q_row, k_batch, k_row, v_batch, v_row;
    // Of the output and its gradient.
    long long o_batch, o_row, do_batch, do_row;
    // Of the gradients.
    long long dq_batch, dq_row, dk_batch, dk_row, dv_batch, dv_row;
};

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 16 bytes to shared memory, asynchronously; zeros if not `there`.
__device__ __forceinline__ void copy16(u32 to, const void *from, bool there)
{
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ __forceinline__ void copies_begun() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> __device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT)); }

// Where 8 features of a row of a tile lie. Rows are 128 bytes; the exclusive or spreads a column over all banks.
__device__ __forceinline__ u32 place(u32 tile, int row, int chunk) { return tile + row * 128 + ((chunk ^ (row & 7)) << 4); }

// Copies up to COUNT positions of a head.
template <int COUNT, int WARPS = 4>
__device__ __forceinline__ void copy_tile(u32 tile, const u16 *from, long long row_distance, int rows, int features)
{
#pragma unroll
    for (int i = 0; i < COUNT / (4 * WARPS); i++) {
        int row = threadIdx.x / 8 + 4 * WARPS * i, chunk = threadIdx.x % 8;
        bool there = row < rows && 8 * chunk < features;
        copy16(place(tile, row, chunk), from + (there ? row * row_distance + 8 * chunk : 0), there);
    }
}

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

// An A of rows `row..row + 16` and features `16 · step..`.
__device__ __forceinline__ Four read_a(u32 tile, int row, int step)
{
    int lane = threadIdx.x & 31;
    return read_four(place(tile, row + (lane & 15), 2 * step + (lane >> 4)));
}

// Two Bs whose columns are the positions `position..position + 16` and whose rows are the features `16 · step..`.
__device__ __forceinline__ Four read_positions(u32 tile, int position, int step)
{
    int lane = threadIdx.x & 31;
    return read_four(place(tile, position + (lane & 7) + ((lane >> 4) << 3), 2 * step + ((lane >> 3) & 1)));
}

// Two Bs whose rows are the positions `position..position + 16` and whose columns are the features `16 · pair..`.
__device__ __forceinline__ Four read_features(u32 tile, int position, int pair)
{
    int lane = threadIdx.x & 31;
    return read_four_transposed(place(tile, position + (lane & 15), 2 * pair + (lane >> 4)));
}

__device__ __forceinline__ void multiply(float (&c)[4], const Four &a, u32 b0, u32 b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
}

// Two neighbouring Cs as an A.
__device__ __forceinline__ Four as_a(const float (&left)[4], const float (&right)[4])
{
    return {{pack_bf16(left[0], left[1]), pack_bf16(left[2], left[3]), pack_bf16(right[0], right[1]),
             pack_bf16(right[2], right[3])}};
}

#ifdef HOPPER
// Positions of the other side that a warp takes at a time, by eights.
#define PART 8
#define DQ_BLOCKS 2

// A tile of rows of 128 bytes, in the order that `place` gives them, which is wgmma's 128-byte swizzle; 8 rows are 1,024 bytes.
__device__ __forceinline__ u64 descriptor(u32 address)
{
    return ((u64)(address & 0x3FFFF) >> 4) | (1ull << 16) | ((u64)(1024 >> 4) << 32) | (1ull << 62);
}

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

// What a block's own rows are multiplied from: shared memory. (Registers that live through the loop are not kept by ptxas 13.0, which
// gives them to others after their first use by wgmma.)
typedef u32 Own;
__device__ __forceinline__ Own own_rows(u32 tile, int) { return tile; }

// c [16 rows, 64 positions] += own · positionsᵀ, over the features; `tile` holds the positions.
__device__ __forceinline__ void by_positions(float (&c)[8][4], Own a, u32 tile)
{
#pragma unroll
    for (int step = 0; step < 4; step++) multiply_group(c, descriptor(a + 32 * step), descriptor(tile + 32 * step));
}

// c [16 rows, features] += p · positions.
__device__ __forceinline__ void by_features(float (&c)[8][4], const Four (&p)[4], u32 tile)
{
#pragma unroll
    for (int step = 0; step < 4; step++) multiply_group(c, p[step], descriptor(tile + 2048 * step));
}
#else
#define PART 4
#define DQ_BLOCKS 3

template <typename T> __device__ __forceinline__ void hold(T &) {}
__device__ __forceinline__ void begin_products() {}
__device__ __forceinline__ void end_products() {}
__device__ __forceinline__ void show_copies() {}

struct Own {
    Four step[4];
};

__device__ __forceinline__ Own own_rows(u32 tile, int row)
{
    Own own;
#pragma unroll
    for (int step = 0; step < 4; step++) own.step[step] = read_a(tile, row, step);
    return own;
}

template <int COUNT> __device__ __forceinline__ void by_positions(float (&c)[COUNT][4], const Own &a, u32 tile)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int pair = 0; pair < COUNT / 2; pair++) {
            Four b = read_positions(tile, 16 * pair, step);
            multiply(c[2 * pair], a.step[step], b.x[0], b.x[1]);
            multiply(c[2 * pair + 1], a.step[step], b.x[2], b.x[3]);
        }
    }
}

template <int STEPS> __device__ __forceinline__ void by_features(float (&c)[8][4], const Four (&p)[STEPS], u32 tile)
{
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            Four b = read_features(tile, 16 * step, pair);
            multiply(c[2 * pair], p[step], b.x[0], b.x[1]);
            multiply(c[2 * pair + 1], p[step], b.x[2], b.x[3]);
        }
    }
}
#endif

// Cs as As.
template <int COUNT> __device__ __forceinline__ void as_factors(Four (&a)[COUNT / 2], const float (&c)[COUNT][4])
{
#pragma unroll
    for (int step = 0; step < COUNT / 2; step++) a[step] = as_a(c[2 * step], c[2 * step + 1]);
}

__device__ __forceinline__ void write_pair(u16 *to, float x, float y) { *(u32 *)to = pack_bf16(x, y); }

// Writes 16 rows of a warp, as far as there are some.
__device__ __forceinline__ void write_rows(
    u16 *to, long long row_distance, int row, int rows, int features, const float (&c)[HEAD / 8][4], float upper, float lower)
{
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++) {
        int feature = 8 * n + 2 * t;
        if (feature >= features) break;
        if (row + g < rows) write_pair(to + (row + g) * row_distance + feature, c[n][0] * upper, c[n][1] * upper);
        if (row + g + 8 < rows) write_pair(to + (row + g + 8) * row_distance + feature, c[n][2] * lower, c[n][3] * lower);
    }
}

// bias[i] = relative[first + i], 0 outside of `distances` numbers.
__device__ __forceinline__ void read_bias(float *bias, const float *relative, int first, int count, int distances)
{
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int at = first + i;
        bias[i] = relative && at >= 0 && at < distances ? relative[at] : 0.0f;
    }
}

