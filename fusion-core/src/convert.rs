//! Tensors in another type.

use safetensors::tensor::TensorView;

use crate::tensor::{Element, float_size, with_element};
use crate::{Dtype, Error, Result};

/// The values of a tensor multiplied by `scale` and rounded, once, to a floating-point type: little-endian, row-major.
/// `name` is for errors.
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
