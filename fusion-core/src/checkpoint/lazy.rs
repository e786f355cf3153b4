//! Tensors that are produced while they are being written.

use std::borrow::Cow;

use bytemuck::NoUninit;

use crate::{Dtype, Error, Result, TensorSource};

/// Fills a buffer with a tensor's little-endian, row-major bytes, starting at an offset in bytes. Called from many threads.
pub type Producer<'a> = Box<dyn Fn(usize, &mut [u8]) -> Result<()> + Send + Sync + 'a>;

/// A tensor whose bytes are produced piece by piece while they are being written.
pub struct LazyTensor<'a> {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    Produced(Box<dyn Fn() -> Result<Producer<'a>> + Sync + 'a>),
}

/// A producer of values that are in memory.
pub(crate) fn whole<'a, T: NoUninit + Send + Sync + 'a>(values: Vec<T>) -> Producer<'a> {
    Box::new(move |start, out| {
        let bytes: &[u8] = bytemuck::cast_slice(&values);
        out.copy_from_slice(&bytes[start..][..out.len()]);
        Ok(())
    })
}

impl<'a> LazyTensor<'a> {
    /// A tensor that is produced in pieces. `prepare` is called before the first piece; the producer that it returns is
    /// dropped after the last one.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        prepare: impl Fn() -> Result<Producer<'a>> + Sync + 'a,
    ) -> Self {
        let content = Content::Produced(Box::new(prepare));
        LazyTensor { name: name.into(), dtype, shape: shape.into(), content }
    }

    /// A tensor that is made as a whole. `make` is called before the first piece is written and returns the elements, or
    /// their little-endian bytes, which stay in memory until the last piece is written.
    pub fn made<T: NoUninit + Send + Sync + 'a>(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        make: impl Fn() -> Result<Vec<T>> + Sync + 'a,
    ) -> Self {
        LazyTensor::new(name, dtype, shape, move || Ok(whole(make()?)))
    }

    /// A tensor whose little-endian, row-major bytes are in memory.
    pub fn of_bytes(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        LazyTensor { name: name.into(), dtype, shape: shape.into(), content: Content::Bytes(bytes.into()) }
    }

    /// A tensor of a source.
    pub fn of(source: &'a dyn TensorSource, name: &str) -> Result<Self> {
        let view = source.view(name)?;
        Ok(LazyTensor::of_bytes(name, view.dtype(), view.shape(), view.data()))
    }

    /// All tensors of a source.
    pub fn all(source: &'a dyn TensorSource) -> Result<Vec<Self>> {
        source.names().iter().map(|name| LazyTensor::of(source, name)).collect()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The number of bytes. Saturates; a file with such a tensor is refused when it is laid out.
    pub fn size(&self) -> usize {
        let bits = self.shape.iter().fold(self.dtype.bitsize(), |bits, size| bits.saturating_mul(*size));
        bits / 8
    }

    /// Checks that there are as many bytes in memory as the type and the shape require.
    pub(super) fn check_size(&self) -> Result<()> {
        match &self.content {
            Content::Bytes(bytes) if bytes.len() != self.size() => Err(Error::ShapeMismatch {
                tensor: self.name.clone(),
                shape: self.shape.clone(),
                elements: bytes.len() * 8 / self.dtype.bitsize(),
            }),
            _ => Ok(()),
        }
    }
}

/// The type of all tensors, if they share one.
pub fn common_type(tensors: &[LazyTensor<'_>]) -> Option<Dtype> {
    let first = tensors.first()?.dtype;
    tensors.iter().all(|tensor| tensor.dtype == first).then_some(first)
}
