//! Reverse-mode differentiation, for frameworks whose own would keep or compute more than T5's operations need.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// What was computed from trainable tensors, in order.
pub struct Tape<T> {
    steps: RefCell<Vec<Step<T>>>,
    next: Cell<usize>,
    recording: bool,
}

/// A tensor's place on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(usize);

/// The gradients of inputs from that of the output; the flags say whose are wanted.
type Backward<T> = Box<dyn FnOnce(T, &[bool]) -> Vec<Option<T>>>;

struct Step<T> {
    output: Place,
    inputs: Vec<Option<Place>>,
    backward: Backward<T>,
}

impl<T> Default for Tape<T> {
    fn default() -> Self {
        Tape { steps: RefCell::default(), next: Cell::new(0), recording: false }
    }
}

impl<T> Tape<T> {
    /// Starts or ends recording; what was recorded before is forgotten.
    pub fn record(&mut self, on: bool) {
        self.recording = on;
        self.steps.get_mut().clear();
    }

    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A place for something trainable. It outlives what is recorded.
    pub fn place(&self) -> Place {
        let place = Place(self.next.get());
        self.next.set(place.0 + 1);
        place
    }

    /// Records how gradients go back through an operation; returns the place of its output. There is none, and nothing is
    /// kept, if nothing is being recorded or no input has a place.
    pub fn step<const N: usize>(
        &self,
        inputs: [Option<Place>; N],
        backward: impl FnOnce(T, [bool; N]) -> [Option<T>; N] + 'static,
    ) -> Option<Place> {
        if !self.recording || inputs.iter().all(Option::is_none) {
            return None;
        }
        let output = self.place();
        let backward = Box::new(move |gradient, wanted: &[bool]| {
            let mut flags = [false; N];
            flags.copy_from_slice(wanted);
            Vec::from(backward(gradient, flags))
        });
        self.steps.borrow_mut().push(Step { output, inputs: inputs.to_vec(), backward });
        Some(output)
    }

    /// The gradients of all places that `from` depends on, where its own is `gradient`. Forgets what was recorded; what a
    /// step kept is freed as soon as it is done.
    pub fn backward(&self, from: Place, gradient: T, add: impl Fn(T, T) -> T) -> HashMap<Place, T> {
        let mut gradients = HashMap::from([(from, gradient)]);
        for Step { output, inputs, backward } in self.steps.take().into_iter().rev() {
            let Some(gradient) = gradients.remove(&output) else { continue };
            let wanted: Vec<bool> = inputs.iter().map(Option::is_some).collect();
            for (input, gradient) in inputs.into_iter().zip(backward(gradient, &wanted)) {
                let (Some(input), Some(gradient)) = (input, gradient) else { continue };
                let sum = match gradients.remove(&input) {
                    Some(before) => add(before, gradient),
                    None => gradient,
                };
                gradients.insert(input, sum);
            }
        }
        gradients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// d(x · x · y + y) at x = 3, y = 5, with a side branch that the result does not depend on.
    #[test]
    fn repeated_operands_and_branches() {
        let mut tape = Tape::<f64>::default();
        let (x, y) = (tape.place(), tape.place());
        let product = |tape: &Tape<f64>, (a, at): (f64, Option<Place>), (b, bt): (f64, Option<Place>)| {
            (a * b, tape.step([at, bt], move |d, _| [Some(d * b), Some(d * a)]))
        };
        assert_eq!(product(&tape, (3.0, Some(x)), (3.0, Some(x))), (9.0, None));
        tape.record(true);
        let square = product(&tape, (3.0, Some(x)), (3.0, Some(x)));
        product(&tape, square, (7.0, None));
        let cubic = product(&tape, square, (5.0, Some(y)));
        let sum = tape.step([cubic.1, Some(y)], |d, _| [Some(d), Some(d)]);
        let gradients = tape.backward(sum.unwrap(), 1.0, |a, b| a + b);
        assert_eq!((gradients[&x], gradients[&y]), (30.0, 10.0));
        assert!(tape.backward(sum.unwrap(), 1.0, |a, b| a + b).len() == 1, "nothing is left on the tape");
    }
}
