//! Reverse-mode differentiation, for frameworks whose own would keep or compute more than T5's operations
//! need.

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

/// The gradients of inputs, from those of outputs and from what the inputs have already: the sum of both.
type Backward<T> = Box<dyn FnOnce(Gradients<'_, T>) -> Vec<Option<T>>>;

/// What a step is given on the way back.
struct Gradients<'a, T> {
    outputs: Vec<Option<T>>,
    /// From other steps.
    inputs: Vec<Option<T>>,
    wanted: &'a [bool],
    add: &'a dyn Fn(T, T) -> T,
}

struct Step<T> {
    outputs: Vec<Place>,
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

    /// Whether operations are being recorded.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A place for something trainable. It outlives what is recorded.
    pub fn place(&self) -> Place {
        let place = Place(self.next.get());
        self.next.set(place.0 + 1);
        place
    }

    /// Records how gradients go back through an operation; returns the place of its output. There is none,
    /// and nothing is kept, if nothing is being recorded or no input has a place.
    pub fn step<const N: usize>(
        &self,
        inputs: [Option<Place>; N],
        backward: impl FnOnce(T, [bool; N]) -> [Option<T>; N] + 'static,
    ) -> Option<Place> {
        let [output] = self.step_with_outputs(inputs.to_vec(), |[gradient], wanted| match gradient {
            Some(gradient) => backward(gradient, array(wanted.to_vec())).into(),
            None => vec![],
        });
        output
    }

    /// The same for an operation with any number of inputs and several outputs, some of which may have no
    /// gradient.
    pub fn step_with_outputs<const M: usize>(
        &self,
        inputs: Vec<Option<Place>>,
        backward: impl FnOnce([Option<T>; M], &[bool]) -> Vec<Option<T>> + 'static,
    ) -> [Option<Place>; M] {
        self.push(inputs, |Gradients { outputs, inputs, wanted, add }| {
            let mut gradients = backward(array(outputs), wanted).into_iter();
            let sum = |before: Option<T>| match (before, gradients.next().flatten()) {
                (Some(before), Some(gradient)) => Some(add(before, gradient)),
                (before, gradient) => before.or(gradient),
            };
            inputs.into_iter().map(sum).collect()
        })
    }

    /// Like [`Tape::step`], but the closure also gets the gradients that the inputs have from elsewhere, if
    /// any, and returns the sums.
    pub fn adding_step<const N: usize>(
        &self,
        inputs: [Option<Place>; N],
        backward: impl FnOnce(T, [Option<T>; N], [bool; N]) -> [Option<T>; N] + 'static,
    ) -> Option<Place> {
        let [output] = self.push(inputs.to_vec(), |Gradients { mut outputs, inputs, wanted, .. }| {
            match outputs.pop().flatten() {
                Some(gradient) => backward(gradient, array(inputs), array(wanted.to_vec())).into(),
                None => inputs,
            }
        });
        output
    }

    fn push<const M: usize>(
        &self,
        inputs: Vec<Option<Place>>,
        backward: impl FnOnce(Gradients<'_, T>) -> Vec<Option<T>> + 'static,
    ) -> [Option<Place>; M] {
        if !self.recording || inputs.iter().all(Option::is_none) {
            return [None; M];
        }
        let outputs: [Place; M] = std::array::from_fn(|_| self.place());
        let backward = Box::new(backward);
        self.steps.borrow_mut().push(Step { outputs: outputs.to_vec(), inputs, backward });
        outputs.map(Some)
    }

    /// The gradients of all trainable places that `from` depends on, where its own is `gradient`. Forgets what
    /// was recorded; what a step kept is freed as soon as it is done.
    pub fn backward(&self, from: Place, gradient: T, add: impl Fn(T, T) -> T) -> HashMap<Place, T> {
        let mut gradients = HashMap::new();
        self.backward_in_turn(from, gradient, add, |place, gradient| {
            gradients.insert(place, gradient);
        });
        gradients
    }

    /// The same, but each gradient is passed on as soon as nothing more will be added to it. The order depends
    /// on what was recorded alone.
    pub fn backward_in_turn(
        &self,
        from: Place,
        gradient: T,
        add: impl Fn(T, T) -> T,
        mut ready: impl FnMut(Place, T),
    ) {
        let mut gradients = HashMap::from([(from, gradient)]);
        let steps = self.steps.take();
        let mut first_use = HashMap::new();
        for (number, step) in steps.iter().enumerate().rev() {
            first_use.extend(step.inputs.iter().flatten().map(|input| (*input, number)));
        }
        // What a step has computed is nobody's parameter.
        for output in steps.iter().flat_map(|step| &step.outputs) {
            first_use.remove(output);
        }
        for (number, Step { outputs, inputs, backward }) in steps.into_iter().enumerate().rev() {
            let outputs: Vec<Option<T>> = outputs.iter().map(|output| gradients.remove(output)).collect();
            if outputs.iter().all(Option::is_none) {
                continue;
            }
            let wanted: Vec<bool> = inputs.iter().map(Option::is_some).collect();
            let before =
                inputs.iter().map(|input| input.and_then(|input| gradients.remove(&input))).collect();
            let sums = backward(Gradients { outputs, inputs: before, wanted: &wanted, add: &add });
            for (input, gradient) in inputs.iter().zip(sums) {
                let (Some(input), Some(gradient)) = (*input, gradient) else { continue };
                // There is one already if an operation has an input twice.
                let sum = match gradients.remove(&input) {
                    Some(before) => add(before, gradient),
                    None => gradient,
                };
                gradients.insert(input, sum);
            }
            for input in inputs.into_iter().flatten().filter(|input| first_use.get(input) == Some(&number)) {
                if let Some(gradient) = gradients.remove(&input) {
                    ready(input, gradient);
                }
            }
        }
        gradients.into_iter().for_each(|(place, gradient)| ready(place, gradient));
    }
}

fn array<T, const N: usize>(values: Vec<T>) -> [T; N] {
    let mut values = values.into_iter();
    // A step is given as many as it recorded.
    std::array::from_fn(|_| values.next().expect("one for each"))
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
