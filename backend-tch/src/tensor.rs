//! Transfers tensors between host and device.

use fusion_core::HostTensor;
use tch::{Device, Kind, Tensor};

pub fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|size| *size as i64).collect()
}

pub fn upload(values: &[f32], shape: &[i64], device: Device) -> Tensor {
    Tensor::from_slice(values).view(shape).to_device(device)
}

/// An i32 tensor.
pub fn integers(values: &[i32], device: Device) -> Tensor {
    Tensor::from_slice(values).to_device(device)
}

/// The tensor of which these are adjacent slices along `dim`, if they are.
pub fn beside(parts: &[Tensor], dim: usize) -> Option<Tensor> {
    let first = parts.first()?;
    let mut size = first.size();
    size[dim] = parts.iter().map(|part| part.size()[dim]).sum();
    let mut strides = vec![1; size.len()];
    for axis in (1..size.len()).rev() {
        strides[axis - 1] = strides[axis] * size[axis];
    }
    let mut next = first.data_ptr() as usize;
    for part in parts {
        let alike =
            size.iter().zip(part.size()).enumerate().all(|(axis, (whole, own))| axis == dim || *whole == own);
        if !alike
            || part.kind() != first.kind()
            || part.stride() != strides
            || part.data_ptr() as usize != next
        {
            return None;
        }
        next += (part.size()[dim] * strides[dim]) as usize * part.kind().elt_size_in_bytes();
    }
    // Separate allocations may be adjacent as well; libtorch refuses views that extend beyond one.
    first.f_as_strided(size, strides, None).ok()
}

/// In f32, whatever the tensor's type.
pub fn host(tensor: &Tensor) -> HostTensor {
    let shape: Vec<usize> = tensor.size().into_iter().map(|size| size as usize).collect();
    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut data = vec![0.0; shape.iter().product()];
    tensor.copy_data(&mut data, tensor.numel());
    HostTensor { shape, data }
}

/// The elements of a contiguous f32 tensor in the host's memory; `None` for any other.
pub fn elements(tensor: &Tensor) -> Option<&[f32]> {
    let here = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    // SAFETY: these are the tensor's elements, of that type, and live as long as it does. Nothing here writes
    // to a tensor while it is borrowed.
    here.then(|| unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}

/// The same for writing.
pub fn elements_mut(tensor: &mut Tensor) -> Option<&mut [f32]> {
    let here = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    // SAFETY: as in `elements`; outside of a recording, the caller holds the only handle of a parameter.
    here.then(|| unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) })
}
