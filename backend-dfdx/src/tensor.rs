//! dfdx's tensors with dimensions known at run time. All tensors that this crate's operations return are
//! contiguous.

use dfdx::prelude::*;
use fusion_core::HostTensor;

/// A parameter or its gradient.
pub type Matrix = Tensor<(usize, usize), f32, Cpu>;
/// A tensor without elements.
pub type Slot = Tensor<(usize,), f32, Cpu>;

/// A tensor with its place for a gradient.
#[derive(Clone)]
pub struct Node<S: Shape> {
    pub tensor: Tensor<S, f32, Cpu>,
    /// The key under which its gradient is stored. Under `tensor` itself, dfdx would store zeros of its size
    /// to add gradients to; without them, the first gradient is stored as it is.
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
/// If their number does not match the shape.
pub fn tensor<S: Shape>(device: &Cpu, data: Vec<f32>, shape: S) -> Tensor<S, f32, Cpu> {
    device.tensor_from_vec(data, shape)
}

/// A tensor's elements in order, without copying.
///
/// # Panics
/// For a view with fewer elements in memory than its shape says.
pub fn values<S: Shape>(tensor: &Tensor<S, f32, Cpu>) -> &[f32] {
    let len = checked_len(tensor);
    let first: *const f32 = &tensor[Default::default()];
    // SAFETY: dfdx only lends single elements of its buffer. The buffer is one `Vec`, which contains all
    // `len` elements from the first one on, and nothing changes it while the tensor is borrowed.
    unsafe { std::slice::from_raw_parts(first, len) }
}

/// The same for writing; in place if no other tensor shares the buffer.
pub fn values_mut<S: Shape>(tensor: &mut Tensor<S, f32, Cpu>) -> &mut [f32] {
    let len = checked_len(tensor);
    let first: *mut f32 = &mut tensor[Default::default()];
    // SAFETY: as in `values`; dfdx has made the buffer unique to this tensor, which is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(first, len) }
}

/// The number of elements, after checking that the last one is where it should be.
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
