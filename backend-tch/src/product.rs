//! Matrix products: libtorch's, except on CPUs where another library's are much faster.

use std::sync::LazyLock;

use t5_model::backend::kernels::matmul::{Into, Matrix, Threads, linear_into, matmul as gemm};
use tch::{Device, Kind, Tensor};

use crate::tensor::{elements, elements_mut};

/// The matrix product over the last two dimensions, in the type of both.
///
/// libtorch multiplies bf16 with oneDNN on CPUs that have the instructions; on others it uses naive loops,
/// which are a hundred times slower. There, the product is computed in f32 and rounded once, which gives the
/// same result.
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    if a.kind() == Kind::BFloat16 && a.device() == Device::Cpu && !cpu_multiplies_bf16() {
        return a.to_kind(Kind::Float).matmul(&b.to_kind(Kind::Float)).to_kind(Kind::BFloat16);
    }
    let by_gemm = if *GEMM_IS_FASTER { by_gemm(a, b) } else { None };
    by_gemm.unwrap_or_else(|| a.matmul(b))
}

/// The product in f32; on CUDA without rounding to bf16 first.
pub fn product_in_f32(a: &Tensor, b: &Tensor) -> Tensor {
    match (a.kind(), a.device()) {
        (Kind::BFloat16, Device::Cuda(_)) => a.mm_dtype(b, Kind::Float),
        _ => matmul(a, b).to_kind(Kind::Float),
    }
}

/// The requirements of oneDNN.
fn cpu_multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The product of two f32 matrices in the host's memory by the `gemm` crate; `None` for other tensors.
fn by_gemm(a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let (left, right, transposed) = (matrix(a)?, matrix(b)?, b.tr());
    let (rows, inner, columns) = (a.size()[0], a.size()[1] as usize, b.size()[1]);
    let mut product = Tensor::empty([rows, columns], (Kind::Float, Device::Cpu));
    let out = elements_mut(&mut product)?;
    match elements(a).zip(elements(&transposed)) {
        Some((x, weight)) => linear_into(out, x, weight, inner),
        None => gemm(out, columns as usize, left, right, Into::Replace, Threads::All),
    }
    Some(product)
}

/// A matrix whose rows or columns lie in one piece in the host's memory, in f32.
fn matrix(tensor: &Tensor) -> Option<Matrix<'_>> {
    if tensor.device() != Device::Cpu || tensor.kind() != Kind::Float {
        return None;
    }
    let [rows, columns] = <[i64; 2]>::try_from(tensor.size()).ok()?.map(|size| size as usize);
    let [down, right] = <[i64; 2]>::try_from(tensor.stride()).ok()?.map(|stride| stride as usize);
    if rows * columns == 0 {
        return None;
    }
    let length = (rows - 1) * down + (columns - 1) * right + 1;
    // SAFETY: as in `elements`; the last of these is the tensor's last element.
    let data = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), length) };
    match (down, right) {
        (_, 1) => Some(Matrix::strided(data, rows, columns, down)),
        (1, _) => Some(Matrix::strided(data, columns, rows, right).transposed()),
        _ => None,
    }
}

/// libtorch's MKL uses AVX-512 on Intel's processors only.
static GEMM_IS_FASTER: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f") && !is_intel();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
});

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let maker = std::arch::x86_64::__cpuid(0);
    [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gemm_multiplies_as_libtorch() {
        tch::manual_seed(1);
        let normal = |rows: i64, columns: i64| Tensor::randn([rows, columns], (Kind::Float, Device::Cpu));
        let cases = [
            ("rows by columns", normal(40, 30), normal(30, 50)),
            ("a linear layer", normal(200, 70), normal(90, 70).tr()),
            ("few rows", normal(3, 70), normal(90, 70).tr()),
            ("one row", normal(1, 70), normal(90, 70).tr()),
            ("the gradient of a weight", normal(200, 70).tr(), normal(200, 90)),
            ("both transposed", normal(20, 10).tr(), normal(30, 20).tr()),
            ("parts", normal(40, 60).narrow(1, 20, 30), normal(50, 40).tr().narrow(0, 5, 30)),
            ("one element", normal(1, 1), normal(1, 1)),
        ];
        for (name, a, b) in cases {
            let (found, expected) = (by_gemm(&a, &b).expect(name), a.matmul(&b));
            assert_eq!(found.size(), expected.size(), "{name}");
            let deviation = (found - &expected).abs().max().double_value(&[]);
            assert!(deviation <= 1e-5 * expected.abs().max().double_value(&[]), "{name}: {deviation}");
        }
        for other in [
            normal(0, 5),
            normal(4, 5).to_kind(Kind::BFloat16),
            normal(8, 5).slice(0, 0, 8, 2).slice(1, 0, 5, 2),
        ] {
            assert!(by_gemm(&other, &normal(5, 3)).is_none());
        }
    }
}
