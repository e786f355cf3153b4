//! Tensors on the host, and where they come from.

use std::collections::BTreeMap;

use half::{bf16, f16};
use rayon::prelude::*;
pub use safetensors::Dtype;
pub use safetensors::tensor::TensorView;

use crate::checkpoint::PIECE;
use crate::{Error, Result};

/// An owned f32 tensor, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTensor {
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// As many values as the product of the sizes.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.iter().product()];
        HostTensor { shape, data }
    }

    /// The error of a tensor whose data do not fill its shape, or not the shape that is wanted.
    pub(crate) fn mismatch(&self, name: &str) -> Error {
        let (tensor, shape, elements) = (name.into(), self.shape.clone(), self.data.len());
        Error::ShapeMismatch { tensor, shape, elements }
    }
}

/// Named tensors that can be viewed without copying them: those of a checkpoint's mapped files, or in memory.
pub trait TensorSource: Sync {
    /// The names of all tensors, sorted.
    fn names(&self) -> Vec<String>;

    /// A tensor's type, shape and little-endian bytes; the bytes need not be aligned.
    fn view(&self, name: &str) -> Result<TensorView<'_>>;

    /// A copy as f32; F16, BF16 and F64 are converted.
    fn load_f32(&self, name: &str) -> Result<HostTensor> {
        let view = self.view(name)?;
        float_size(name, view.dtype())?;
        Ok(HostTensor { shape: view.shape().to_vec(), data: to_f32(view.dtype(), view.data()) })
    }
}

/// Tensors in memory, by name.
pub type HostTensors = BTreeMap<String, HostTensor>;

impl TensorSource for HostTensors {
    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }

    fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let tensor = self.get(name).ok_or_else(|| Error::no_tensor("the model in memory", name))?;
        let elements = tensor.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if elements != Some(tensor.data.len()) {
            return Err(tensor.mismatch(name));
        }
        let bytes = bytemuck::cast_slice(&tensor.data);
        TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(|_| tensor.mismatch(name))
    }
}

/// The size in bytes of an element of a floating-point type; other types are an error.
pub(crate) fn float_size(tensor: &str, dtype: Dtype) -> Result<usize> {
    match dtype {
        Dtype::F16 | Dtype::BF16 => Ok(2),
        Dtype::F32 => Ok(4),
        Dtype::F64 => Ok(8),
        _ => Err(Error::NotAFloat { tensor: tensor.into(), dtype }),
    }
}

/// The narrowest floating-point type that holds the values of two: F32 for F16 and BF16.
pub fn wider(a: Dtype, b: Dtype) -> Dtype {
    match (a, b) {
        _ if a == b => a,
        (Dtype::F16, Dtype::BF16) | (Dtype::BF16, Dtype::F16) => Dtype::F32,
        (Dtype::F16 | Dtype::BF16, _) => b,
        (_, Dtype::F16 | Dtype::BF16) => a,
        _ => Dtype::F64,
    }
}

/// A floating-point type of a file.
pub(crate) trait Element: Copy {
    const SIZE: usize;
    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut [u8]);
    fn to_f64(self) -> f64;
    /// Rounds to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($type:ty, $size:literal, $to:expr, $from:expr) => {
        impl Element for $type {
            const SIZE: usize = $size;
            #[inline]
            fn read(bytes: &[u8]) -> Self {
                let mut buffer = [0; $size];
                buffer.copy_from_slice(bytes);
                <$type>::from_le_bytes(buffer)
            }
            #[inline]
            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn to_f64(self) -> f64 {
                $to(self)
            }
            #[inline]
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
        }
    };
}
// Through f32, which is exact for values that were f32: the direct conversion of `half` drops low bits before it rounds.
element!(f16, 2, f16::to_f64, |value| f16::from_f32(value as f32));
element!(bf16, 2, bf16::to_f64, |value| bf16::from_f32(value as f32));
element!(f32, 4, f64::from, |value| value as f32);
element!(f64, 8, |value| value, |value| value);

/// Runs an expression with `$T` as the [`Element`] of a floating-point `$dtype`, and `$other` for all other types.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr, _ => $other:expr) => {
        match $dtype {
            $crate::Dtype::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::Dtype::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::Dtype::F64 => {
                type $T = f64;
                $body
            }
            _ => $other,
        }
    };
}
pub(crate) use with_element;

/// The number of values of a tensor that are infinite or not a number.
pub fn count_not_finite(view: &TensorView<'_>) -> u64 {
    // An exponent of ones.
    fn count<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool + Sync) -> u64 {
        let piece =
            |piece: &[u8]| piece.as_chunks().0.iter().filter(|value| !is_finite(**value)).count() as u64;
        bytes.par_chunks(PIECE).map(piece).sum()
    }
    let bytes = view.data();
    match view.dtype() {
        Dtype::F16 => count(bytes, |value| u16::from_le_bytes(value) & 0x7c00 != 0x7c00),
        Dtype::BF16 => count(bytes, |value| u16::from_le_bytes(value) & 0x7f80 != 0x7f80),
        Dtype::F32 => count(bytes, |value| f32::from_le_bytes(value).is_finite()),
        Dtype::F64 => count(bytes, |value| f64::from_le_bytes(value).is_finite()),
        _ => 0,
    }
}

/// Values of a floating-point type as f32; other types give no values.
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    with_element!(dtype, T => {
        bytes.chunks_exact(T::SIZE).map(|chunk| T::read(chunk).to_f64() as f32).collect()
    }, _ => Vec::new())
}

/// The values of a tensor, multiplied by `scale` and rounded once to a floating-point type: little-endian, row-major.
/// Errors call the tensor `name`.
///
/// # Errors
/// [`Error::NotAFloat`], or [`Error::DoesNotFit`] if a finite value is too large for the type.
pub fn convert_tensor(name: &str, view: &TensorView<'_>, dtype: Dtype, scale: f64) -> Result<Vec<u8>> {
    float_size(name, view.dtype())?;
    let mut bytes = vec![0; view.shape().iter().product::<usize>() * float_size(name, dtype)?];
    with_element!(view.dtype(), S => with_element!(dtype, T => {
        for (source, out) in view.data().chunks_exact(S::SIZE).zip(bytes.chunks_exact_mut(T::SIZE)) {
            let value = S::read(source).to_f64() * scale;
            let rounded = T::from_f64(value);
            if value.is_finite() && !rounded.to_f64().is_finite() {
                return Err(Error::DoesNotFit { parameter: name.into(), value, dtype });
            }
            rounded.write(out);
        }
    }, _ => ()), _ => ());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_in_every_type() {
        let values = [1.0, f64::NAN, -0.0, f64::INFINITY, 3e-5, f64::NEG_INFINITY, -2.5];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F64, vec![7], &bytes).unwrap();
        assert_eq!(count_not_finite(&view), 3);
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let bytes = convert_tensor("x", &view, dtype, 1.0).unwrap();
            let view = TensorView::new(dtype, vec![7], &bytes).unwrap();
            assert_eq!(count_not_finite(&view), 3, "{dtype}");
        }
    }

    #[test]
    fn the_wider_type_holds_both() {
        use Dtype::{BF16, F16, F32, F64};
        let cases = [(F16, F16, F16), (F16, BF16, F32), (BF16, F32, F32), (F64, F16, F64), (F32, F64, F64)];
        for (a, b, wide) in cases {
            assert_eq!((wider(a, b), wider(b, a)), (wide, wide));
        }
    }
}
