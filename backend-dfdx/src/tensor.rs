//! dfdx's tensors, with dimensions known at run time. All that leave this crate's operations are contiguous.

use dfdx::prelude::*;
use fusion_core::HostTensor;

/// A parameter or its gradient.
pub type Matrix = Tensor<(usize, usize), f32, Cpu>;
/// A tensor without elements.
pub type Slot = Tensor<(usize,), f32, Cpu>;

/// A tensor of an operation.
#[derive(Clone)]
pub struct Node<S: Shape> {
    pub tensor: Tensor<S, f32, Cpu>,
    /// Whose gradient is this tensor's. Under `tensor` itself, dfdx would file zeros of its size to add
    /// gradients to; where there are none, the first gradient that comes is filed as it is.
    pub gradient: Slot,
}

impl<S: Shape> Node<S> {
    pub fn new(tensor: Tensor<S, f32, Cpu>) -> Self {
        let gradient = tensor.device().tensor_from_vec(Vec::new(), (0,));
        Node { tensor, gradient }
    }
}

/// A tensor of these elements.
///
/// # Panics
/// If their number is not the shape's.
pub fn tensor<S: Shape>(device: &Cpu, data: Vec<f32>, shape: S) -> Tensor<S, f32, Cpu> {
    device.tensor_from_vec(data, shape)
}

/// A tensor's elements in order, without a copy.
///
/// # Panics
/// For a view that has fewer elements in memory than its shape says.
pub fn values<S: Shape>(tensor: &Tensor<S, f32, Cpu>) -> &[f32] {
    let len = checked_len(tensor);
    let first: *const f32 = &tensor[Default::default()];
    // SAFETY: dfdx lends single elements of its buffer only. The buffer is one `Vec`, the last of `len` elements from the first
    // on lies in it, and nothing changes it while the tensor is borrowed.
    unsafe { std::slice::from_raw_parts(first, len) }
}

/// The same to write to. In place, if no other tensor shares the buffer.
pub fn values_mut<S: Shape>(tensor: &mut Tensor<S, f32, Cpu>) -> &mut [f32] {
    let len = checked_len(tensor);
    let first: *mut f32 = &mut tensor[Default::default()];
    // SAFETY: as in `values`; dfdx has made the buffer this tensor's own, and it is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(first, len) }
}

/// The number of elements, the last of which lies where it should.
fn checked_len<S: Shape>(tensor: &Tensor<S, f32, Cpu>) -> usize {
    let mut last = tensor.shape().concrete();
    (0..S::NUM_DIMS).for_each(|axis| last[axis] = last[axis].saturating_sub(1));
    let address = |index| (&raw const tensor[index]).addr();
    let distance = address(last) - address(Default::default());
    let len = tensor.shape().num_elements();
    assert_eq!(distance, (len - 1) * size_of::<f32>(), "a view of dfdx is taken for a whole tensor");
    len
}

pub fn host<S: Shape>(tensor: &Tensor<S, f32, Cpu>, shape: &[usize]) -> HostTensor {
    HostTensor { shape: shape.to_vec(), data: values(tensor).to_vec() }
}
