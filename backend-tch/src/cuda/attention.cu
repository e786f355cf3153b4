// softmax(q · kᵀ + bias) · v for heads of up to 128 features in bf16, forward and backward, without storing probabilities
// (arXiv 2205.14135, 2307.08691) and with T5's bias: a number for each head and distance key - query.
// `tiles.cu` says how a block multiplies.
//
// With dropout (DROPOUT is 1), `kept` [batch, heads, queries, tiles of keys] has a bit for each of a tile's keys: whether the
// probability is kept, and multiplied by `keep`.

// The bits of rows g and g + 8 for a lane's columns.
struct Kept {
    u32 bits[2][2];
};

// `row` is the first of them, of `left` rows from it on.
__device__ __forceinline__ Kept read_kept(const uint2 *row, int tiles, int left, int t)
{
    Kept kept;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint2 word = 8 * half < left ? row[(long long)8 * half * tiles] : make_uint2(0, 0);
        kept.bits[half][0] = word.x >> (2 * t);
        kept.bits[half][1] = word.y >> (2 * t);
    }
    return kept;
}

// Of c[n][i], where n counts from the tile's first column.
__device__ __forceinline__ bool is_kept(const Kept &kept, int n, int i)
{
    return kept.bits[i >> 1][n >> 2] >> (8 * (n & 3) + (i & 1)) & 1;
}

// Where scores start: at the bias, which depends on the distance alone and so is that of row g + 8 and the next 8 columns.
template <int COUNT> __device__ __forceinline__ void start_scores(float (&c)[COUNT][4], const float *near)
{
    c[0][2] = near[-8];
    c[0][3] = near[-7];
#pragma unroll
    for (int n = 0; n < COUNT; n++) {
        c[n][0] = near[8 * n];
        c[n][1] = near[8 * n + 1];
        if (n + 1 < COUNT) {
            c[n + 1][2] = c[n][0];
            c[n + 1][3] = c[n][1];
        }
    }
}

// Grid [tiles of queries, heads, batch]. `relative` [heads, queries + keys - 1] or null: the bias of key - query + queries - 1.
// `visible` [batch, keys] or null. `lse` [batch, heads, queries] gets log2 of the sum of exponentials.
extern "C" __global__ void __launch_bounds__(128, FORWARD_BLOCKS) attention_forward(
    const u16 *q, const u16 *k, const u16 *v, const float *relative, const u8 *visible, const uint2 *kept, u16 *out, float *lse,
    Shape s)
{
    BLOCK_MEMORY(memory);
    u32 tiles = shared_address(memory); // two stages of keys and values, and the block's queries
    float *bias = (float *)(memory + 5 * TILE_BYTES);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int first = blockIdx.x * ROWS, head = blockIdx.y, example = blockIdx.z, row = 16 * warp;
    q += example * s.q_batch + head * s.features + first * s.q_row;
    k += example * s.k_batch + head * s.features;
    v += example * s.v_batch + head * s.features;
    if (visible) visible += (long long)example * s.keys;
#if DROPOUT
    int all = (s.keys + TILE - 1) / TILE, left = s.queries - first - row - g;
    kept += (((long long)example * s.heads + head) * s.queries + first + row + g) * all;
#endif

    int shift = s.keys - s.queries;
    int end = s.causal ? min(s.keys, first + ROWS + shift) : s.keys;
    int count = (end + TILE - 1) / TILE;
    copy_tile<ROWS>(tiles + 4 * TILE_BYTES, q, s.q_row, s.queries - first, s.features);
    copies_begun();
    copy_tile<TILE>(tiles, k, s.k_row, s.keys, s.features);
    copy_tile<TILE>(tiles + TILE_BYTES, v, s.v_row, s.keys, s.features);
    copies_begun();
    // bias[key - query + ROWS - 1], the query counted from `first`.
    int distances = s.queries + s.keys - 1;
    read_bias(bias, relative ? relative + (long long)head * distances : nullptr, s.queries - ROWS - first,
              count * TILE + ROWS, distances);
    await_copies<1>();
    __syncthreads();
    Own query = own_rows(tiles + 4 * TILE_BYTES, row);

    float o[HEAD / 8][4] = {};
    float maximum[2] = {MINUS_INFINITY, MINUS_INFINITY}, sum[2] = {0, 0};
    for (int tile = 0; tile < count; tile++) {
        int key0 = tile * TILE;
        u32 keys = tiles + (tile & 1) * 2 * TILE_BYTES, values = keys + TILE_BYTES;
        if (tile + 1 < count) {
            u32 next = tiles + ((tile + 1) & 1) * 2 * TILE_BYTES;
            int left = s.keys - key0 - TILE;
            copy_tile<TILE>(next, k + (key0 + TILE) * s.k_row, s.k_row, left, s.features);
            copy_tile<TILE>(next + TILE_BYTES, v + (key0 + TILE) * s.v_row, s.v_row, left, s.features);
        }
        copies_begun();
        await_copies<1>();
        show_copies();
        __syncthreads();

        float p[8][4];
        start_scores(p, bias + key0 + ROWS - 1 - row - g + 2 * t);
        hold(p);
        begin_products();
        by_positions(p, query, keys);
        end_products();
        hold(p);
        bool whole = key0 + TILE <= s.keys && !visible && (!s.causal || key0 + TILE <= first + row + shift + 1);
        if (!whole) {
#pragma unroll
            for (int n = 0; n < 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = key0 + 8 * n + 2 * t + (i & 1), seen = first + row + g + (i & 2) * 4 + shift;
                    bool hidden = key >= s.keys || (s.causal && key > seen) || (visible && !visible[key]);
                    if (hidden) p[n][i] = MINUS_INFINITY;
                }
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = maximum[half];
#pragma unroll
            for (int n = 0; n < 8; n++) largest = fmaxf(largest, fmaxf(p[n][2 * half], p[n][2 * half + 1]));
            largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
            float base = largest == MINUS_INFINITY ? 0.0f : largest * LOG2E;
            float scale = power_of_2(maximum[half] * LOG2E - base);
            maximum[half] = largest;
            float more = 0;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                p[n][2 * half] = power_of_2(p[n][2 * half] * LOG2E - base);
                p[n][2 * half + 1] = power_of_2(p[n][2 * half + 1] * LOG2E - base);
                more += p[n][2 * half] + p[n][2 * half + 1];
            }
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++) {
                o[n][2 * half] *= scale;
                o[n][2 * half + 1] *= scale;
            }
            sum[half] = sum[half] * scale + more;
        }
#if DROPOUT
        Kept of_tile = read_kept(kept + tile, all, left, t);
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) p[n][i] = is_kept(of_tile, n, i) ? p[n][i] : 0.0f;
        }
#endif
        Four factors[4];
        as_factors(factors, p);
        hold(o);
        hold(factors);
        begin_products();
        by_features(o, factors, values);
        end_products();
        hold(o);
        hold(factors);
        __syncthreads();
    }
    await_copies<0>();
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(0xFFFFFFFFu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xFFFFFFFFu, sum[half], 2);
        factor[half] = (DROPOUT ? s.keep : 1.0f) / sum[half];
        int query_row = first + row + g + 8 * half;
        if (t == 0 && query_row < s.queries)
            lse[((long long)example * s.heads + head) * s.queries + query_row] = maximum[half] * LOG2E + log2f(sum[half]);
    }
    write_rows(out + example * s.o_batch + head * s.features + first * s.o_row, s.o_row, row, s.queries - first, s.features, o,
               factor[0], factor[1]);
}

// deltas[batch, heads, queries] = the sum over features of out · dout. Eight lanes take a row of a head.
extern "C" __global__ void __launch_bounds__(256) attention_deltas(const u16 *out, const u16 *dout, float *deltas, Shape s)
{
    long long index = ((long long)blockIdx.x * 256 + threadIdx.x) / 8;
    int part = threadIdx.x & 7;
    bool there = index < (long long)s.batch * s.heads * s.queries;
    int head = index % s.heads;
    long long position = index / s.heads;
    long long example = position / s.queries, query = position % s.queries;
    float sum = 0;
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++) {
        int feature = 64 * panel + 8 * part;
        if (!there || feature >= s.features) break;
        int at = head * s.features + feature;
        uint4 a = *(const uint4 *)(out + example * s.o_batch + query * s.o_row + at);
        uint4 b = *(const uint4 *)(dout + example * s.do_batch + query * s.do_row + at);
        u32 x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum += __uint_as_float(x[i] << 16) * __uint_as_float(y[i] << 16) +
                   __uint_as_float(x[i] & 0xFFFF0000u) * __uint_as_float(y[i] & 0xFFFF0000u);
    }
#pragma unroll
    for (int offset = 4; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    if (there && part == 0) deltas[(example * s.heads + head) * s.queries + query] = sum;
}

// The gradients of keys and values. Grid [tiles of keys, heads, batch].
extern "C" __global__ void __launch_bounds__(128, DKV_BLOCKS) attention_dkv(
    const u16 *q, const u16 *k, const u16 *v, const float *relative, const u8 *visible, const uint2 *kept, const u16 *dout,
    const float *lse, const float *deltas, u16 *dk, u16 *dv, Shape s)
{
    BLOCK_MEMORY(memory);
    u32 tiles = shared_address(memory); // two stages of queries and gradients of the output
    u32 own = tiles + 4 * TILE_BYTES; // the block's keys and values
    float *rows = (float *)(memory + 6 * TILE_BYTES); // two stages of 64 lse and 64 deltas
#if DROPOUT
    uint2 *row_kept = (uint2 *)(rows + 256); // two stages of 64 queries
    float *bias = rows + 512;
#else
    float *bias = rows + 256;
#endif
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int first = blockIdx.x * ROWS, head = blockIdx.y, example = blockIdx.z, row = 16 * warp;
    q += example * s.q_batch + head * s.features;
    dout += example * s.do_batch + head * s.features;
    lse += ((long long)example * s.heads + head) * s.queries;
    deltas += ((long long)example * s.heads + head) * s.queries;
#if DROPOUT
    kept += ((long long)example * s.heads + head) * s.queries * gridDim.x + blockIdx.x;
#endif

    int shift = s.keys - s.queries;
    int count = (s.queries + TILE - 1) / TILE;
    // The first tile with a query that sees a key of these.
    int begin = s.causal ? max(0, first - shift) / TILE : 0;
    copy_tile<ROWS>(own, k + example * s.k_batch + head * s.features + first * s.k_row, s.k_row, s.keys - first, s.features);
    copy_tile<ROWS>(own + TILE_BYTES, v + example * s.v_batch + head * s.features + first * s.v_row, s.v_row, s.keys - first,
                    s.features);
    copies_begun();
    // bias[key - query + padded - 1], the key counted from `first`.
    int padded = count * TILE, distances = s.queries + s.keys - 1;
    read_bias(bias, relative ? relative + (long long)head * distances : nullptr, first + s.queries - padded, padded + ROWS,
              distances);
    bool hidden[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int at = first + row + g + 8 * half;
        hidden[half] = at >= s.keys || (visible && !visible[(long long)example * s.keys + at]);
    }
    await_copies<0>();
    __syncthreads();
    Own key = own_rows(own, row), value = own_rows(own + TILE_BYTES, row);

    auto copy_stage = [&](int tile) {
        u32 to = tiles + (tile & 1) * 2 * TILE_BYTES;
        int query0 = tile * TILE;
        copy_tile<TILE>(to, q + query0 * s.q_row, s.q_row, s.queries - query0, s.features);
        copy_tile<TILE>(to + TILE_BYTES, dout + query0 * s.do_row, s.do_row, s.queries - query0, s.features);
        if (threadIdx.x < 128) {
            int at = threadIdx.x & 63;
            bool is_lse = threadIdx.x < 64, there = query0 + at < s.queries;
            // A query that there is not has no probabilities. Deltas are subtracted.
            float outside = is_lse ? -MINUS_INFINITY : 0.0f;
            rows[(tile & 1) * 128 + threadIdx.x] = there ? (is_lse ? lse[query0 + at] : -deltas[query0 + at]) : outside;
#if DROPOUT
            if (is_lse)
                row_kept[(tile & 1) * 64 + at] = there ? kept[(long long)(query0 + at) * gridDim.x] : make_uint2(0, 0);
#endif
        }
    };
    float dk_sum[HEAD / 8][4] = {}, dv_sum[HEAD / 8][4] = {};
    if (begin < count) copy_stage(begin);
    copies_begun();
    for (int tile = begin; tile < count; tile++) {
        int query0 = tile * TILE;
        u32 queries = tiles + (tile & 1) * 2 * TILE_BYTES, gradients = queries + TILE_BYTES;
        if (tile + 1 < count) copy_stage(tile + 1);
        copies_begun();
        await_copies<1>();
        show_copies();
        __syncthreads();
        const float *row_lse = rows + (tile & 1) * 128, *row_delta = row_lse + 64;
#if DROPOUT
        const u32 *own_kept = (const u32 *)row_kept + row / 32; // the half of the keys that this warp is in
#endif
        bool whole = first + row + 16 <= s.keys && !visible && (!s.causal || first + row + 15 <= query0 + shift);
#pragma unroll
        for (int start = 0; start < TILE; start += 8 * PART) {
            // [16 keys, 8 · PART queries]; the bias falls with the query.
            float p[PART][4], dp[PART][4];
            const float *near = bias + row + g + padded - 1 - query0 - start - 2 * t;
            p[0][0] = near[0];
            p[0][1] = near[-1];
#pragma unroll
            for (int n = 0; n < PART; n++) {
                p[n][2] = near[8 - 8 * n];
                p[n][3] = near[7 - 8 * n];
                if (n + 1 < PART) {
                    p[n + 1][0] = near[-8 - 8 * n];
                    p[n + 1][1] = near[-9 - 8 * n];
                }
#if DROPOUT
                dp[n][0] = dp[n][1] = dp[n][2] = dp[n][3] = 0;
#else
                float2 delta = *(const float2 *)(row_delta + start + 8 * n + 2 * t);
                dp[n][0] = dp[n][2] = delta.x;
                dp[n][1] = dp[n][3] = delta.y;
#endif
            }
            hold(p);
            hold(dp);
            begin_products();
            by_positions(p, key, queries + start * 128);
            by_positions(dp, value, gradients + start * 128);
            end_products();
            hold(p);
            hold(dp);
#pragma unroll
            for (int n = 0; n < PART; n++) {
                float2 of_row = *(const float2 *)(row_lse + start + 8 * n + 2 * t);
#pragma unroll
                for (int i = 0; i < 4; i++) p[n][i] = power_of_2(p[n][i] * LOG2E - (i & 1 ? of_row.y : of_row.x));
                if (!whole) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int query = query0 + start + 8 * n + 2 * t + (i & 1), seen = first + row + g + (i & 2) * 4;
                        if (hidden[i >> 1] || (s.causal && seen > query + shift)) p[n][i] = 0.0f;
                    }
                }
#if DROPOUT
                float2 delta = *(const float2 *)(row_delta + start + 8 * n + 2 * t);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int column = (tile & 1) * 64 + start + 8 * n + 2 * t + (i & 1);
                    bool is_kept = own_kept[2 * column] >> ((row & 31) + g + (i & 2) * 4) & 1;
                    dp[n][i] = ((is_kept ? dp[n][i] * s.keep : 0.0f) + (i & 1 ? delta.y : delta.x)) * p[n][i];
                    p[n][i] = is_kept ? p[n][i] : 0.0f;
                }
#else
#pragma unroll
                for (int i = 0; i < 4; i++) dp[n][i] *= p[n][i];
#endif
            }
            Four factors[PART / 2], gradient_factors[PART / 2];
            as_factors(factors, p);
            as_factors(gradient_factors, dp);
            hold(dv_sum);
            hold(dk_sum);
            hold(factors);
            hold(gradient_factors);
            begin_products();
            by_features(dv_sum, factors, gradients + start * 128);
            by_features(dk_sum, gradient_factors, queries + start * 128);
            end_products();
            hold(dv_sum);
            hold(dk_sum);
            hold(factors);
            hold(gradient_factors);
        }
        __syncthreads();
    }
    await_copies<0>();
    write_rows(dk + example * s.dk_batch + head * s.features + first * s.dk_row, s.dk_row, row, s.keys - first, s.features, dk_sum,
               1.0f, 1.0f);
    float factor = DROPOUT ? s.keep : 1.0f;
    write_rows(dv + example * s.dv_batch + head * s.features + first * s.dv_row, s.dv_row, row, s.keys - first, s.features, dv_sum,
               factor, factor);
}

// The gradients of queries and of the bias. Grid [tiles of queries, heads, groups of examples]. `partial`, if not null, gets for each
// block the sums of the scores' gradients by key - query + ROWS - 1, the query counted within the tile: [heads, tiles, groups, span]
// with span = 64 · tiles of keys + ROWS.
//
// How it adds them up: the Cs of a warp are 8 × 8 squares of keys 8n.. and queries 8a..; squares with the same n - a = j lie on the
// same diagonals, so they are added first. A lane has columns 2t and 2t + 1 of row g of such a sum. What is on the diagonal of the
// first is, for the second, a row further down, at lane + 4 (for g = 7 in the sum of j - 1). One shuffle brings them together, and a
// lane keeps the sum of diagonal 8j + 2t - g in a column of shared memory that is its own.
extern "C" __global__ void __launch_bounds__(128, DQ_BLOCKS) attention_dq(
    const u16 *q, const u16 *k, const u16 *v, const float *relative, const u8 *visible, const uint2 *kept, const u16 *dout,
    const float *lse, const float *deltas, u16 *dq, float *partial, Shape s)
{
    BLOCK_MEMORY(memory);
    u32 tiles = shared_address(memory);
    float *bias = (float *)(memory + 6 * TILE_BYTES);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int first = blockIdx.x * ROWS, head = blockIdx.y, row = 16 * warp;
    int shift = s.keys - s.queries;
    int end = s.causal ? min(s.keys, first + ROWS + shift) : s.keys;
    int count = (end + TILE - 1) / TILE, all = (s.keys + TILE - 1) / TILE;
    int distances = s.queries + s.keys - 1;
    read_bias(bias, relative ? relative + (long long)head * distances : nullptr, s.queries - ROWS - first, all * TILE + ROWS,
              distances);
    // [warp][j + 1][lane] for j in -1..=8 · count
    float *diagonals = bias + all * TILE + ROWS;
    int squares = 8 * all + 2;
    float *own = diagonals + warp * squares * 32 + lane;
    if (partial)
        for (int j = 0; j < squares; j++) own[32 * j] = 0.0f;

    int last = min(s.batch, (int)(blockIdx.z + 1) * s.group);
    for (int example = blockIdx.z * s.group; example < last; example++) {
        const u16 *k_of = k + example * s.k_batch + head * s.features, *v_of = v + example * s.v_batch + head * s.features;
        const u8 *visible_of = visible ? visible + (long long)example * s.keys : nullptr;
        copy_tile<ROWS>(tiles + 4 * TILE_BYTES, q + example * s.q_batch + head * s.features + first * s.q_row, s.q_row, s.queries - first, s.features);
        copy_tile<ROWS>(tiles + 5 * TILE_BYTES, dout + example * s.do_batch + head * s.features + first * s.do_row, s.do_row,
                        s.queries - first, s.features);
        copies_begun();
        copy_tile<TILE>(tiles, k_of, s.k_row, s.keys, s.features);
        copy_tile<TILE>(tiles + TILE_BYTES, v_of, s.v_row, s.keys, s.features);
        copies_begun();
        await_copies<1>();
        __syncthreads();
        Own query = own_rows(tiles + 4 * TILE_BYTES, row), gradient = own_rows(tiles + 5 * TILE_BYTES, row);
        float row_lse[2], row_delta[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int at = first + row + g + 8 * half;
            long long index = ((long long)example * s.heads + head) * s.queries + at;
            row_lse[half] = at < s.queries ? lse[index] : -MINUS_INFINITY;
            row_delta[half] = at < s.queries ? -deltas[index] : 0.0f;
        }

#if DROPOUT
        const uint2 *kept_of = kept + (((long long)example * s.heads + head) * s.queries + first + row + g) * all;
#endif

        float dq_sum[HEAD / 8][4] = {};
        // Of the square before: what it has of queries g, its sums' second column, and of j - 1 the same.
        float even = 0, odd = 0, odd_before = 0;
        int j = 0;
        auto add_square = [&](float e, float o) {
            float below = __shfl_sync(0xFFFFFFFFu, g == 0 ? odd_before : o, (lane + 4) & 31);
            own[32 * j] += e + below;
            odd_before = o;
            j++;
        };
        for (int tile = 0; tile < count; tile++) {
            int key0 = tile * TILE;
            u32 keys = tiles + (tile & 1) * 2 * TILE_BYTES, values = keys + TILE_BYTES;
            if (tile + 1 < count) {
                u32 next = tiles + ((tile + 1) & 1) * 2 * TILE_BYTES;
                int left = s.keys - key0 - TILE;
                copy_tile<TILE>(next, k_of + (key0 + TILE) * s.k_row, s.k_row, left, s.features);
                copy_tile<TILE>(next + TILE_BYTES, v_of + (key0 + TILE) * s.v_row, s.v_row, left, s.features);
            }
            copies_begun();
            await_copies<1>();
            show_copies();
            __syncthreads();
            bool whole = key0 + TILE <= s.keys && !visible && (!s.causal || key0 + TILE <= first + row + shift + 1);
#if DROPOUT
            Kept of_tile = read_kept(kept_of + tile, all, s.queries - first - row - g, t);
#endif
#pragma unroll
            for (int start = 0; start < TILE; start += 8 * PART) {
                // [16 queries, 8 · PART keys]
                float p[PART][4], dp[PART][4];
                start_scores(p, bias + key0 + start + ROWS - 1 - row - g + 2 * t);
#pragma unroll
                for (int n = 0; n < PART; n++) {
                    dp[n][0] = dp[n][1] = DROPOUT ? 0.0f : row_delta[0];
                    dp[n][2] = dp[n][3] = DROPOUT ? 0.0f : row_delta[1];
                }
                hold(p);
                hold(dp);
                begin_products();
                by_positions(p, query, keys + start * 128);
                by_positions(dp, gradient, values + start * 128);
                end_products();
                hold(p);
                hold(dp);
#pragma unroll
                for (int n = 0; n < PART; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        p[n][i] = power_of_2(p[n][i] * LOG2E - row_lse[i >> 1]);
                        if (!whole) {
                            int key = key0 + start + 8 * n + 2 * t + (i & 1), seen = first + row + g + (i & 2) * 4 + shift;
                            bool hidden =
                                key >= s.keys || (s.causal && key > seen) || (visible_of && !visible_of[key]);
                            if (hidden) p[n][i] = 0.0f;
                        }
#if DROPOUT
                        dp[n][i] = (is_kept(of_tile, start / 8 + n, i) ? dp[n][i] * s.keep : 0.0f) + row_delta[i >> 1];
#endif
                        dp[n][i] *= p[n][i];
                    }
                }
                if (partial) {
#pragma unroll
                    for (int n = 0; n < PART; n++) {
                        add_square(even + dp[n][2], odd + dp[n][3]);
                        even = dp[n][0];
                        odd = dp[n][1];
                    }
                }
                Four factors[PART / 2];
                as_factors(factors, dp);
                hold(dq_sum);
                hold(factors);
                begin_products();
                by_features(dq_sum, factors, keys + start * 128);
                end_products();
                hold(dq_sum);
                hold(factors);
            }
            __syncthreads();
        }
        if (partial) {
            add_square(even, odd);
            add_square(0.0f, 0.0f);
        }
        await_copies<0>();
        write_rows(dq + example * s.dq_batch + head * s.features + first * s.dq_row, s.dq_row, row, s.queries - first, s.features,
                   dq_sum, 1.0f, 1.0f);
    }
    if (!partial) return;
    __syncthreads();
    int span = all * TILE + ROWS;
    float *to = partial + (((long long)head * gridDim.x + blockIdx.x) * gridDim.z + blockIdx.z) * span;
    for (int i = threadIdx.x; i < span; i += blockDim.x) {
        float sum = 0;
        for (int w = 0; w < 4; w++) {
            for (int column = 0; column < 4; column++) {
                // 8j - g
                int x = i - (ROWS - 1) + 16 * w - 2 * column, of = (-x) & 7, square = (x + of) / 8 + 1;
                if (x + of >= -8 && square < squares) sum += diagonals[(w * squares + square) * 32 + 4 * of + column];
            }
        }
        to[i] = sum;
    }
}

// drelative [heads, queries + keys - 1] from what `attention_dq` left. Grid [distances / 128, heads].
extern "C" __global__ void __launch_bounds__(128) attention_dbias(const float *partial, float *drelative, int tiles, int groups, Shape s)
{
    int distances = s.queries + s.keys - 1, at = blockIdx.x * 128 + threadIdx.x, head = blockIdx.y;
    if (at >= distances) return;
    int span = ((s.keys + TILE - 1) / TILE) * TILE + ROWS;
    float sum = 0;
    for (int tile = 0; tile < tiles; tile++) {
        int i = at - (s.queries - 1) + tile * ROWS + ROWS - 1;
        if (i < 0 || i >= span) continue;
        const float *from = partial + ((long long)head * tiles + tile) * groups * span + i;
        for (int group = 0; group < groups; group++) sum += from[(long long)group * span];
    }
    drelative[(long long)head * distances + at] = sum;
}

// The bits of `kept` for the factors of `DropoutDraw` (as in `activation.cu`), of `rows` [batch · heads · queries] of `keys` probabilities
// in words of 32. `size` is the number of elements of an example.
extern "C" __global__ void __launch_bounds__(256) attention_kept(
    u32 *kept, u32 key0, u32 key1, u32 threshold, long long first, long long size, long long rows, int keys, int words)
{
    long long index = (long long)blockIdx.x * 256 + threadIdx.x, row = index / words;
    int key = 32 * (int)(index - row * words);
    if (row >= rows) return;
    long long at = row * keys + key, example = at / size, element = at - example * size;
    uint4 draws = make_uint4(0, 0, 0, 0);
    u32 bits = 0;
    for (int i = 0; i < 32 && key + i < keys; i++, element++) {
        if (element == size) {
            example++;
            element = 0;
        }
        int place = element & 7;
        if (i == 0 || place == 0) draws = philox((u64)(first + example) << 32 | (u64)(element / 8), make_uint2(key0, key1));
        u32 word = place < 4 ? (place < 2 ? draws.x : draws.y) : (place < 6 ? draws.z : draws.w);
        u32 draw = place & 1 ? word >> 16 : word & 0xFFFF;
        bits |= (u32)(draw >= threshold) << i;
    }
    kept[index] = bits;
}
