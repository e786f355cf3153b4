// The gradient of an embedding: for each token, the sum over the positions where it stands, in their order. The host has sorted the
// positions by token and cut them into pieces, so that the sums are the same in every run. Widths are multiples of 4.

struct Piece {
    // Its positions in `order`.
    int first, end;
    // Where its sum goes: a row of the table, or one of `partial` if the token has several pieces.
    int row, is_partial;
};

extern "C" __global__ void __launch_bounds__(128) sum_pieces(
    const float *dy, const int *order, const Piece *pieces, float *partial, float *dtable, int width)
{
    Piece piece = pieces[blockIdx.x];
    float *to = (piece.is_partial ? partial : dtable) + (long long)piece.row * width;
    for (int column = 4 * threadIdx.x; column < width; column += 4 * blockDim.x) {
        float4 sum = make_float4(0, 0, 0, 0);
        for (int i = piece.first; i < piece.end; i++) {
            float4 d = *(const float4 *)(dy + (long long)order[i] * width + column);
            sum = make_float4(sum.x + d.x, sum.y + d.y, sum.z + d.z, sum.w + d.w);
        }
        *(float4 *)(to + column) = sum;
    }
}

// The tokens with several pieces: rows `first..end` of `partial`.
extern "C" __global__ void __launch_bounds__(128) sum_partial(
    const float *partial, const Piece *tokens, float *dtable, int width)
{
    Piece token = tokens[blockIdx.x];
    for (int column = 4 * threadIdx.x; column < width; column += 4 * blockDim.x) {
        float4 sum = make_float4(0, 0, 0, 0);
        for (int i = token.first; i < token.end; i++) {
            float4 d = *(const float4 *)(partial + (long long)i * width + column);
            sum = make_float4(sum.x + d.x, sum.y + d.y, sum.z + d.z, sum.w + d.w);
        }
        *(float4 *)(dtable + (long long)token.row * width + column) = sum;
    }
}
