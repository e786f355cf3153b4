// RMSNorm over groups of features. A warp takes a row; VECTORS float4 a lane hold it. Widths and the groups' ends are multiples
// of 4.

#define VECTORS VARIANT

// y = gain · x · scale with scale = rsqrt(mean(x²) + epsilon), kept for the way back. With `more`, x + more stands for x, and goes
// to `sum`.
extern "C" __global__ void __launch_bounds__(256) norm_forward(
    const float *x, const Element *more, float *sum, const float *gain, const int *ends, int groups, float epsilon, Element *y,
    float *scales, long long rows, int width)
{
    int lane = threadIdx.x & 31;
    long long row = (long long)blockIdx.x * 8 + (threadIdx.x >> 5);
    if (row >= rows) return;
    float4 v[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        int column = 4 * (lane + 32 * i);
        v[i] = column < width ? *(const float4 *)(x + row * width + column) : make_float4(0, 0, 0, 0);
        if (more && column < width) {
            float4 m = load4(more + row * width + column);
            v[i] = make_float4(v[i].x + m.x, v[i].y + m.y, v[i].z + m.z, v[i].w + m.w);
            *(float4 *)(sum + row * width + column) = v[i];
        }
    }
    int start = 0;
    for (int group = 0; group < groups; group++) {
        int end = ends[group];
        float squares = 0;
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            int column = 4 * (lane + 32 * i);
            if (column >= start && column < end)
                squares += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
        }
        float scale = rsqrtf(warp_sum(squares) / (end - start) + epsilon);
        if (lane == 0) scales[row * groups + group] = scale;
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            int column = 4 * (lane + 32 * i);
            if (column >= start && column < end) {
                float4 g = *(const float4 *)(gain + column);
                store4(y + row * width + column, make_float4(g.x * (v[i].x * scale), g.y * (v[i].y * scale),
                                                             g.z * (v[i].z * scale), g.w * (v[i].w * scale)));
            }
        }
        start = end;
    }
}

// dx = (gain · dy - n · mean(n · gain · dy)) · scale with n = x · scale, plus `carry` if there is one: the gradient that x has from
// elsewhere. It goes to `low` as well, rounded, if that is not null. `dgains` gets a row of sums for each block.
extern "C" __global__ void __launch_bounds__(256) norm_backward(
    const Element *dy, const float *x, const float *gain, const int *ends, int groups, const float *scales, const float *carry,
    float *dx, Element *low, float *dgains, long long rows, int width)
{
    BLOCK_MEMORY(memory);
    float *sums = (float *)memory;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float4 total[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) total[i] = make_float4(0, 0, 0, 0);
    for (long long row = (long long)blockIdx.x * 8 + warp; row < rows; row += (long long)gridDim.x * 8) {
        float4 d[VECTORS], n[VECTORS];
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            int column = 4 * (lane + 32 * i);
            bool inside = column < width;
            d[i] = inside ? load4(dy + row * width + column) : make_float4(0, 0, 0, 0);
            n[i] = inside ? *(const float4 *)(x + row * width + column) : make_float4(0, 0, 0, 0);
        }
        int start = 0;
        for (int group = 0; group < groups; group++) {
            int end = ends[group];
            float scale = scales[row * groups + group], sum = 0;
#pragma unroll
            for (int i = 0; i < VECTORS; i++) {
                int column = 4 * (lane + 32 * i);
                if (column >= start && column < end) {
                    n[i] = make_float4(n[i].x * scale, n[i].y * scale, n[i].z * scale, n[i].w * scale);
                    total[i].x += d[i].x * n[i].x;
                    total[i].y += d[i].y * n[i].y;
                    total[i].z += d[i].z * n[i].z;
                    total[i].w += d[i].w * n[i].w;
                    float4 g = *(const float4 *)(gain + column);
                    d[i] = make_float4(d[i].x * g.x, d[i].y * g.y, d[i].z * g.z, d[i].w * g.w);
                    sum += d[i].x * n[i].x + d[i].y * n[i].y + d[i].z * n[i].z + d[i].w * n[i].w;
                }
            }
            float projection = warp_sum(sum) / (end - start);
#pragma unroll
            for (int i = 0; i < VECTORS; i++) {
                int column = 4 * (lane + 32 * i);
                if (column >= start && column < end) {
                    float4 out = make_float4((d[i].x - n[i].x * projection) * scale, (d[i].y - n[i].y * projection) * scale,
                                             (d[i].z - n[i].z * projection) * scale, (d[i].w - n[i].w * projection) * scale);
                    if (carry) {
                        float4 c = *(const float4 *)(carry + row * width + column);
                        out = make_float4(out.x + c.x, out.y + c.y, out.z + c.z, out.w + c.w);
                    }
                    *(float4 *)(dx + row * width + column) = out;
                    if (low) store4(low + row * width + column, out);
                }
            }
            start = end;
        }
    }
    // The warps add up one after the other, so that the order is always the same.
    for (int turn = 0; turn < 8; turn++) {
        if (warp == turn) {
#pragma unroll
            for (int i = 0; i < VECTORS; i++) {
                int column = 4 * (lane + 32 * i);
                if (column < width) {
                    float4 before = turn ? *(float4 *)(sums + column) : make_float4(0, 0, 0, 0);
                    *(float4 *)(sums + column) = make_float4(before.x + total[i].x, before.y + total[i].y,
                                                             before.z + total[i].z, before.w + total[i].w);
                }
            }
        }
        __syncthreads();
    }
    for (int column = threadIdx.x; column < width; column += blockDim.x)
        dgains[(long long)blockIdx.x * width + column] = sums[column];
}
