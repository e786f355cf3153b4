//! Trainable tensors, and their low-precision copies for matrix products.

use std::cell::RefCell;

use t5_model::backend::Place;
use tch::{Kind, Tensor};

use crate::tensor::beside;

/// A trainable tensor.
pub struct Parameter {
    /// In f32.
    value: RefCell<Tensor>,
    /// A copy in the precision of matrix products, if that is not f32; refreshed after each update.
    low: RefCell<Option<Tensor>>,
    pub place: Place,
}

impl Parameter {
    pub fn new(value: Tensor, place: Place) -> Self {
        Parameter { value: RefCell::new(value), low: RefCell::default(), place }
    }

    pub fn value(&self) -> Tensor {
        self.value.borrow().shallow_clone()
    }

    /// The weights in the precision of matrix products.
    pub fn operand(&self, kind: Kind) -> Tensor {
        match kind {
            Kind::Float => self.value(),
            kind => self.low.borrow_mut().get_or_insert_with(|| self.value().to_kind(kind)).shallow_clone(),
        }
    }

    fn set_operand(&self, operand: Tensor) {
        match operand.kind() {
            Kind::Float => drop(self.value.replace(operand)),
            _ => drop(self.low.replace(Some(operand))),
        }
    }

    /// The f32 weights and the low-precision copy, for an update of both.
    pub fn both(&mut self) -> (&mut Tensor, Option<&mut Tensor>) {
        (self.value.get_mut(), self.low.get_mut().as_mut())
    }

    /// Refreshes the low-precision copy after an update of the weights.
    pub fn round(&mut self) {
        if let (value, Some(low)) = self.both() {
            low.copy_(value);
        }
    }
}

/// Stacks the matrices along their rows, for one matrix product. The first call copies them into one buffer;
/// after that, the parameters are views of it.
pub fn joined<const N: usize>(parameters: [&Parameter; N], kind: Kind) -> Tensor {
    let parts = parameters.map(|parameter| parameter.operand(kind));
    if let Some(whole) = beside(&parts, 0) {
        return whole;
    }
    let whole = Tensor::cat(&parts, 0);
    let mut first = 0;
    for (parameter, part) in parameters.iter().zip(&parts) {
        let rows = part.size()[0];
        parameter.set_operand(whole.narrow(0, first, rows));
        first += rows;
    }
    whole
}
