// Adafactor of all parameters, in five launches after those of `update.cu`. A chunk of a factored matrix is ROWS whole rows.

#define ROWS 64

// Added to the squares.
#define EPSILON 1e-30f

// The rows' means of squares, and each chunk's sums of squares over its columns.
extern "C" __global__ void __launch_bounds__(256) factor(
    const Slot *slots, int count, float decay, const double *stats, float *columns)
{
    if (stats[2] == 0.0) return;
    Slot slot = slots[slot_of(slots, count, blockIdx.x)];
    if (!slot.second) return;
    __shared__ float sums[8][ROWS];
    float scale = (float)stats[1];
    u64 width = slot.detail, chunk = blockIdx.x - slot.chunk;
    int rows = (int)min((u64)ROWS, slot.size / width - chunk * ROWS);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const float *gradient = slot.gradient + chunk * slot.length;
    for (int row = lane; row < ROWS; row += 32) sums[warp][row] = 0;
    __syncwarp();
    for (u64 first = 0; first < width; first += 256) {
        u64 column = first + threadIdx.x;
        float of_column = 0;
        for (int row = 0; row < rows; row++) {
            float g = column < width ? gradient[row * width + column] * scale : 0;
            of_column += g * g;
            float of_row = warp_sum(g * g);
            if (lane == 0) sums[warp][row] += of_row;
        }
        if (column < width) columns[slot.scratch + chunk * width + column] = of_column;
    }
    __syncthreads();
    for (int row = threadIdx.x; row < rows; row += 256) {
        float sum = 0;
        for (int i = 0; i < 8; i++) sum += sums[i][row];
        float *average = slot.first + chunk * ROWS + row;
        *average = decay * *average + (1 - decay) * (sum / width + EPSILON);
    }
}

// The columns' means of squares, 256 to a block, and in the last block of a matrix the mean over its rows.
extern "C" __global__ void __launch_bounds__(256) factor_columns(
    const Slot *slots, float decay, const double *stats, const float *columns, float *means)
{
    if (stats[2] == 0.0) return;
    Slot slot = slots[blockIdx.x];
    if (!slot.second) return;
    u64 width = slot.detail, rows = slot.size / width, chunks = (rows + ROWS - 1) / ROWS;
    if (blockIdx.y + 1 == gridDim.y) {
        __shared__ double sums[256];
        double sum = 0;
        for (u64 row = threadIdx.x; row < rows; row += 256) sum += slot.first[row];
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.x > 0) return;
        sum = 0;
        for (int i = 0; i < 256; i++) sum += sums[i];
        means[blockIdx.x] = (float)(sum / rows);
        return;
    }
    u64 column = blockIdx.y * 256 + threadIdx.x;
    if (column >= width) return;
    float sum = 0;
    for (u64 chunk = 0; chunk < chunks; chunk++) sum += columns[slot.scratch + chunk * width + column];
    slot.second[column] = decay * slot.second[column] + (1 - decay) * (sum / rows + EPSILON);
}

// Calls `each` with the index and the direction of every element of the block's chunk.
template <class Each>
__device__ __forceinline__ void for_directions(const Slot &slot, float scale, float mean, Each each)
{
    u64 chunk = blockIdx.x - slot.chunk, start = chunk * slot.length, end = min(slot.size, start + slot.length);
    if (!slot.second) {
        for (u64 i = start + threadIdx.x; i < end; i += 256) each(i, slot.gradient[i] * scale / sqrtf(slot.first[i]));
        return;
    }
    u64 width = slot.detail;
    for (u64 column = threadIdx.x; column < width; column += 256) {
        float by_column = scale / sqrtf(slot.second[column]);
        for (u64 i = start + column, row = chunk * ROWS; i < end; i += width, row++)
            each(i, slot.gradient[i] * sqrtf(mean / slot.first[row]) * by_column);
    }
}

// The squares of parameters that are not factored, and each chunk's sum of squared directions.
extern "C" __global__ void __launch_bounds__(256) direct(
    const Slot *slots, int count, float decay, const double *stats, const float *means, float *partial)
{
    if (stats[2] == 0.0) return;
    int index = slot_of(slots, count, blockIdx.x);
    Slot slot = slots[index];
    float scale = (float)stats[1], sum = 0;
    if (!slot.second) {
        u64 start = (blockIdx.x - slot.chunk) * slot.length, end = min(slot.size, start + slot.length);
        for (u64 i = start + threadIdx.x; i < end; i += 256) {
            float g = slot.gradient[i] * scale;
            slot.first[i] = decay * slot.first[i] + (1 - decay) * (g * g + EPSILON);
        }
    }
    for_directions(slot, scale, means[index], [&](u64, float direction) { sum += direction * direction; });
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Each parameter's rate: relative to its scale, and lower where its direction is longer than the threshold.
extern "C" __global__ void __launch_bounds__(256) clip(
    const Slot *slots, int count, long long chunks, const double *stats, const float *partial, const float *scales,
    float learning_rate, float threshold, float *rates)
{
    if (stats[2] == 0.0) return;
    int index = blockIdx.x * 256 + threadIdx.x;
    if (index >= count) return;
    double sum = 0;
    u64 end = index + 1 < count ? slots[index + 1].chunk : (u64)chunks;
    for (u64 chunk = slots[index].chunk; chunk < end; chunk++) sum += partial[chunk];
    float rms = (float)sqrt(sum / slots[index].size);
    rates[index] = learning_rate * scales[index] / fmaxf(1.0f, rms / threshold);
}

extern "C" __global__ void __launch_bounds__(256) descend(
    const Slot *slots, int count, const double *stats, const float *means, const float *rates)
{
    if (stats[2] == 0.0) return;
    int index = slot_of(slots, count, blockIdx.x);
    Slot slot = slots[index];
    float rate = rates[index];
    for_directions(slot, (float)stats[1], means[index], [&](u64 i, float direction) {
        float w = slot.weights[i] - rate * direction;
        slot.weights[i] = w;
        if (slot.low) slot.low[i] = to_bf16(w);
    });
}
