//! Activations, and gradients on their way back.

use std::cell::RefCell;
use std::rc::Rc;

use t5_model::Place;
use tch::{Kind, Tensor};

/// An activation or a bias.
#[derive(Clone)]
pub struct Node {
    value: Rc<RefCell<Value>>,
    pub place: Option<Place>,
}

enum Value {
    Known(Tensor),
    /// f32 and the type of products. A norm adds them on its way.
    Sum(Tensor, Tensor),
}

/// A gradient on its way back.
pub struct Gradient {
    pub value: Tensor,
    /// The same in bf16, where a kernel wrote both.
    pub low: Option<Tensor>,
}

impl Gradient {
    pub fn in_kind(&self, kind: Kind) -> Gradient {
        match &self.low {
            Some(low) if low.kind() == kind => low.shallow_clone().into(),
            _ => self.value.to_kind(kind).into(),
        }
    }

    /// With both types where the input is f32, else in that of the input.
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

    /// `x + y`, which a norm may add up on its way.
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

    /// What is still to be added.
    pub fn sum(&self) -> Option<(Tensor, Tensor)> {
        match &*self.value.borrow() {
            Value::Known(_) => None,
            Value::Sum(x, y) => Some((x.shallow_clone(), y.shallow_clone())),
        }
    }

    /// Its value when somebody has added it up.
    pub fn set(&self, sum: &Tensor) {
        *self.value.borrow_mut() = Value::Known(sum.shallow_clone());
    }

    pub fn input(&self) -> (Option<Place>, Kind) {
        (self.place, self.kind())
    }
}
