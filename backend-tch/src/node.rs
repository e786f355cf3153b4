//! Activations, and gradients during the backward pass.

use std::cell::RefCell;
use std::rc::Rc;

use t5_model::backend::Place;
use tch::{Kind, Tensor};

/// An activation or a position bias, with its place on the tape.
#[derive(Clone)]
pub struct Node {
    value: Rc<RefCell<Value>>,
    pub place: Option<Place>,
}

enum Value {
    Known(Tensor),
    /// A sum that has not been computed yet: an f32 term and one in the precision of matrix products. The
    /// next norm computes it in the same pass.
    Sum(Tensor, Tensor),
}

/// A gradient during the backward pass.
pub struct Gradient {
    pub value: Tensor,
    /// A bf16 copy, if a kernel wrote one along with the f32 value.
    pub low: Option<Tensor>,
}

impl Gradient {
    pub fn in_kind(&self, kind: Kind) -> Gradient {
        match &self.low {
            Some(low) if low.kind() == kind => low.shallow_clone().into(),
            _ => self.value.to_kind(kind).into(),
        }
    }

    /// Unchanged (f32 with its bf16 copy) for an f32 input; otherwise converted to the input's type.
    pub fn or_in(self, kind: Kind) -> Gradient {
        if kind == Kind::Float { self } else { self.in_kind(kind) }
    }
}

impl From<Tensor> for Gradient {
    fn from(value: Tensor) -> Self {
        Gradient { value, low: None }
    }
}

impl Node {
    pub fn new(value: Tensor, place: Option<Place>) -> Self {
        Node { value: Rc::new(RefCell::new(Value::Known(value))), place }
    }

    /// `x + y`, computed when first needed.
    pub fn later(x: Tensor, y: Tensor, place: Option<Place>) -> Self {
        Node { value: Rc::new(RefCell::new(Value::Sum(x, y))), place }
    }

    pub fn value(&self) -> Tensor {
        let mut value = self.value.borrow_mut();
        let sum = match &*value {
            Value::Known(tensor) => return tensor.shallow_clone(),
            Value::Sum(x, y) => x + y,
        };
        *value = Value::Known(sum.shallow_clone());
        sum
    }

    pub fn kind(&self) -> Kind {
        match &*self.value.borrow() {
            Value::Known(tensor) => tensor.kind(),
            Value::Sum(..) => Kind::Float,
        }
    }

    /// The two terms of a sum that has not been computed yet.
    pub fn sum(&self) -> Option<(Tensor, Tensor)> {
        match &*self.value.borrow() {
            Value::Known(_) => None,
            Value::Sum(x, y) => Some((x.shallow_clone(), y.shallow_clone())),
        }
    }

    /// Stores the result of a sum that was computed elsewhere.
    pub fn set(&self, sum: &Tensor) {
        *self.value.borrow_mut() = Value::Known(sum.shallow_clone());
    }

    pub fn input(&self) -> (Option<Place>, Kind) {
        (self.place, self.kind())
    }
}
