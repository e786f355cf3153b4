//! dfdx's tensors, with dimensions known at run time. All that leave this crate's operations are contiguous.

use dfdx::prelude::*;
use fusion_core::HostTensor;

/// `[batch, length, features]`, or `[heads, query, key]`.
pub type Activation = Tensor<(usize, usize, usize), f32, Cpu>;
/// A parameter or its gradient.
pub type Matrix = Tensor<(usize, usize), f32, Cpu>;
/// Another tensor's elements and gradient, whatever its shape.
pub type Flat = Tensor<(usize,), f32, Cpu>;

/// A tensor of these elements.
///
/// # Panics
/// If their number is not the shape's.
pub fn tensor<S: Shape>(device: &Cpu, data: Vec<f32>, shape: S) -> Tensor<S, f32, Cpu> {
    device.tensor_from_vec(data, shape)
}

/// The same buffer and the same gradient.
pub fn flat<S: Shape>(tensor: &Tensor<S, f32, Cpu>) -> Flat {
    tensor.clone().reshape_like(&(tensor.shape().num_elements(),))
}

/// A tensor's elements in order, without a copy.
pub fn values<S: Shape>(tensor: &Tensor<S, f32, Cpu>) -> &[f32] {
    let len = tensor.shape().num_elements();
    let first: *const f32 = &tensor[Default::default()];
    // SAFETY: dfdx lends single elements of its buffer only. A contiguous tensor's buffer is one `Vec` that begins with the
    // first element and has as many as the shape; nothing changes it while the tensor is borrowed.
    unsafe { std::slice::from_raw_parts(first, len) }
}

/// The same to write to. In place, if no other tensor shares the buffer.
pub fn values_mut<S: Shape>(tensor: &mut Tensor<S, f32, Cpu>) -> &mut [f32] {
    let len = tensor.shape().num_elements();
    let first: *mut f32 = &mut tensor[Default::default()];
    // SAFETY: as in `values`; dfdx has made the buffer this tensor's own, and it is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(first, len) }
}

pub fn host<S: Shape>(tensor: &Tensor<S, f32, Cpu>, shape: &[usize]) -> HostTensor {
    HostTensor { shape: shape.to_vec(), data: values(tensor).to_vec() }
}
