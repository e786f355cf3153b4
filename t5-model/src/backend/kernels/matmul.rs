//! Matrix products, by the `gemm` crate.

use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix in a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major; rows are `stride` elements apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || (rows - 1) * stride + columns <= data.len(),
            "a matrix ends outside of its slice"
        );
        Matrix { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Row-major without gaps.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// The same values with rows and columns exchanged; copies nothing.
    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Whether a product may use all threads; products inside parallel work must not.
#[derive(Clone, Copy, PartialEq)]
pub enum Threads {
    /// The calling thread only.
    One,
    /// All threads of the pool.
    All,
}

/// What happens to the destination's old values.
#[derive(Clone, Copy, PartialEq)]
pub enum Into {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = a · b`, or `out += a · b`; rows of `out` are `stride` elements apart.
pub fn matmul(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>, into: Into, threads: Threads) {
    product(out, [stride, 1], a, b, into, threads);
}

/// The same, given how far rows and columns of `out` are apart.
fn product(
    out: &mut [f32],
    [rows_apart, columns_apart]: [usize; 2],
    a: Matrix<'_>,
    b: Matrix<'_>,
    into: Into,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "the inner sizes of a matrix product differ");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    let last = (m - 1) * rows_apart + (n - 1) * columns_apart;
    assert!(last < out.len(), "a matrix product ends outside of its destination");
    // Below this many multiplications, waking threads costs more than it saves.
    let parallel = threads == Threads::All && m * n * k >= 1 << 21;
    let parallelism = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: all three matrices are within their slices (checked above and in `Matrix::strided`), and the
    // destination is borrowed exclusively. With `Replace` the destination is not read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            columns_apart as isize,
            rows_apart as isize,
            into == Into::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x · weightᵀ`; `x` is `[rows, in]`, `weight` `[out, in]`. A row's result is bit-identical whatever the
/// other rows are.
pub fn linear(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let mut y = super::buffer(rows * outputs);
    linear_into(&mut y, x, weight, inputs);
    y
}

/// [`linear`] with a destination, `[rows, out]`.
pub fn linear_into(y: &mut [f32], x: &[f32], weight: &[f32], inputs: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let least = least_rows(inputs, outputs);
    if (1..least).contains(&rows) {
        let mut more = x.to_vec();
        more.resize(least * inputs, 0.0);
        y.copy_from_slice(&linear(&more, weight, inputs)[..rows * outputs]);
        return;
    }
    let (x, weight) = (Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs));
    if rows <= few_rows(inputs) {
        // `gemm` copies its left factor, which this way is not the weight.
        let mut columns = super::buffer(outputs * rows);
        product(&mut columns, [1, rows], x, weight.transposed(), Into::Replace, Threads::All);
        write_columns(y, &columns, rows, outputs);
    } else {
        matmul(y, outputs, x, weight.transposed(), Into::Replace, Threads::All);
    }
}

/// Up to this many rows, as decoding has them, copying a weight costs more than transposing the result (measured
/// with AVX-512).
fn few_rows(inputs: usize) -> usize {
    (inputs / 4 + 16).min(96)
}

/// Writes a matrix that is given by its columns.
fn write_columns(y: &mut [f32], columns: &[f32], rows: usize, outputs: usize) {
    const AT_ONCE: usize = 16; // rows: a cache line of a column
    let write = |(group, y): (usize, &mut [f32])| {
        for (output, column) in columns.chunks_exact(rows).enumerate() {
            for (y, value) in y[output..].iter_mut().step_by(outputs).zip(&column[group * AT_ONCE..]) {
                *y = *value;
            }
        }
    };
    if y.len() >= super::PIECE {
        y.par_chunks_mut(AT_ONCE * outputs).enumerate().for_each(write);
    } else {
        y.chunks_mut(AT_ONCE * outputs).enumerate().for_each(write);
    }
}

/// The number of rows from which `gemm` sums all products the same way: it handles single rows, very few
/// elements, and small results of long rows differently.
fn least_rows(inputs: usize, outputs: usize) -> usize {
    const FEW_ELEMENTS: usize = 16 * 16;
    const SMALL: usize = 64;
    const LONG: usize = 512;
    let more_than_few = FEW_ELEMENTS / outputs.max(1) + 1;
    let large = if outputs <= SMALL && inputs > LONG { SMALL + 1 } else { 2 };
    more_than_few.max(large)
}

/// The gradient of a linear layer's input: `dy · weight`.
pub fn linear_input_gradient(dy: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = weight.len() / inputs;
    let rows = dy.len() / outputs;
    let mut dx = super::buffer(rows * inputs);
    let (dy, weight) = (Matrix::new(dy, rows, outputs), Matrix::new(weight, outputs, inputs));
    matmul(&mut dx, inputs, dy, weight, Into::Replace, Threads::All);
    dx
}

/// The gradient of a linear layer's weight: `dyᵀ · x`.
pub fn linear_weight_gradient(dy: &[f32], x: &[f32], inputs: usize) -> Vec<f32> {
    let rows = x.len() / inputs;
    let outputs = dy.len() / rows;
    let mut dw = super::buffer(outputs * inputs);
    let (dy, x) = (Matrix::new(dy, rows, outputs), Matrix::new(x, rows, inputs));
    matmul(&mut dw, inputs, dy.transposed(), x, Into::Replace, Threads::All);
    dw
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::linear;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_row_is_the_same_in_any_company(
            rows in 1usize..190, inputs in 1usize..1100, outputs in 1usize..150, chosen in any::<[prop::sample::Index; 5]>(),
            count in 1usize..=5,
        ) {
            let value = |at: usize| ((at * 7919) % 1013) as f32 / 500.0 - 1.0;
            let x: Vec<f32> = (0..rows * inputs).map(value).collect();
            let weight: Vec<f32> = (0..outputs * inputs).map(|at| value(at + 31)).collect();
            let all = linear(&x, &weight, inputs);
            let chosen: Vec<usize> = chosen[..count].iter().map(|index| index.index(rows)).collect();
            let few: Vec<f32> = chosen.iter().flat_map(|row| &x[row * inputs..][..inputs]).copied().collect();
            let expected: Vec<f32> =
                chosen.iter().flat_map(|row| &all[row * outputs..][..outputs]).copied().collect();
            prop_assert_eq!(linear(&few, &weight, inputs), expected);
        }
    }
}
