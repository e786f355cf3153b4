// Tiles of 64 positions of a head in shared memory, and the products of warps with them.
//
// A block takes ROWS queries (or, for the gradients of keys and values, as many keys) of a head, a warp 16 of them, and walks over
// the other side 64 at a time. Products are of bf16 with sums in f32: mma.m16n8k16, or wgmma.m64n64k16 on Hopper (if HOPPER is
// defined), whose four warps read the right factor from shared memory together. In what follows a lane is 4 · g + t. It holds of
//   A [16, 16]: rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9;   B [16, 8]: the same rows 2t … of column g;
//   C [16, 8]: rows g and g + 8, columns 2t and 2t + 1.
// No sum depends on the order in which blocks run.

// Of VARIANT: whether probabilities are dropped, and whether heads have more than 64 features.
#define DROPOUT (VARIANT & 1)
#define WIDE (VARIANT >> 1)

#define ROWS 64
#define TILE 64
// Features of a head, at most, and of a panel: tiles are stored as panels of 64 features.
#define HEAD (WIDE ? 128 : 64)
#define PANELS (HEAD / 64)
#define PANEL_BYTES 8192
#define TILE_BYTES (PANELS * PANEL_BYTES)
#define FORWARD_BLOCKS (WIDE ? 2 : 4)
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

// Where 8 features of a row of a tile lie. Rows of a panel are 128 bytes; the exclusive or spreads a column over all banks.
__device__ __forceinline__ u32 place(u32 tile, int row, int chunk)
{
    int panel = PANELS > 1 ? chunk >> 3 : 0;
    return tile + panel * PANEL_BYTES + row * 128 + (((chunk - 8 * panel) ^ (row & 7)) << 4);
}

// Copies up to COUNT positions of a head.
template <int COUNT, int WARPS = 4>
__device__ __forceinline__ void copy_tile(u32 tile, const u16 *from, long long row_distance, int rows, int features)
{
#pragma unroll
    for (int i = 0; i < COUNT / (4 * WARPS); i++) {
#pragma unroll
        for (int panel = 0; panel < PANELS; panel++) {
            int row = threadIdx.x / 8 + 4 * WARPS * i, chunk = threadIdx.x % 8 + 8 * panel;
            bool there = row < rows && 8 * chunk < features;
            copy16(place(tile, row, chunk), from + (there ? row * row_distance + 8 * chunk : 0), there);
        }
    }
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
#define DKV_BLOCKS (WIDE ? 2 : 3)

// A tile of rows of 128 bytes, in the order that `place` gives them, which is wgmma's 128-byte swizzle; 8 rows are 1,024 bytes.
__device__ __forceinline__ u64 descriptor(u32 address)
{
    return ((u64)(address & 0x3FFFF) >> 4) | (1ull << 16) | ((u64)(1024 >> 4) << 32) | (1ull << 62);
}

// What a block's own rows are multiplied from: shared memory. (Registers that live through the loop are not kept by ptxas 13.0, which
// gives them to others after their first use by wgmma.)
typedef u32 Own;
__device__ __forceinline__ Own own_rows(u32 tile, int) { return tile; }

// c [16 rows, 64 positions] += own · positionsᵀ, over the features; `tile` holds the positions.
__device__ __forceinline__ void by_positions(float (&c)[8][4], Own a, u32 tile)
{
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++, a += PANEL_BYTES, tile += PANEL_BYTES) {
#pragma unroll
        for (int step = 0; step < 4; step++) multiply_group(c, descriptor(a + 32 * step), descriptor(tile + 32 * step));
    }
}

// c [16 rows, features] += p · positions.
__device__ __forceinline__ void by_features(float (&c)[HEAD / 8][4], const Four (&p)[4], u32 tile)
{
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int panel = 0; panel < PANELS; panel++)
            multiply_group((float (&)[8][4])c[8 * panel], p[step], descriptor(tile + panel * PANEL_BYTES + 2048 * step));
    }
}
#else
#define PART 4
#define DQ_BLOCKS (WIDE ? 2 : 3)
#define DKV_BLOCKS (WIDE ? 2 : 3)

#if WIDE
// The block's own rows would take too many registers.
struct Own {
    u32 tile;
    int row;
    __device__ __forceinline__ Four step(int step) const { return read_a(tile, row, step); }
};

__device__ __forceinline__ Own own_rows(u32 tile, int row) { return {tile, row}; }
#else
struct Own {
    Four steps[HEAD / 16];
    __device__ __forceinline__ const Four &step(int step) const { return steps[step]; }
};

__device__ __forceinline__ Own own_rows(u32 tile, int row)
{
    Own own;
#pragma unroll
    for (int step = 0; step < HEAD / 16; step++) own.steps[step] = read_a(tile, row, step);
    return own;
}
#endif

template <int COUNT> __device__ __forceinline__ void by_positions(float (&c)[COUNT][4], const Own &a, u32 tile)
{
#pragma unroll
    for (int step = 0; step < HEAD / 16; step++) {
        Four own = a.step(step);
#pragma unroll
        for (int pair = 0; pair < COUNT / 2; pair++) {
            Four b = read_positions(tile, 16 * pair, step);
            multiply(c[2 * pair], own, b.x[0], b.x[1]);
            multiply(c[2 * pair + 1], own, b.x[2], b.x[3]);
        }
    }
}

template <int STEPS> __device__ __forceinline__ void by_features(float (&c)[HEAD / 8][4], const Four (&p)[STEPS], u32 tile)
{
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int pair = 0; pair < HEAD / 16; pair++) {
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

