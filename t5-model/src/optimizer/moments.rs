//! What an optimiser remembers of a parameter.

use std::collections::BTreeMap;

use fusion_core::HostTensor;

/// Running averages by name: `exp_avg` and `exp_avg_sq` of AdamW; of Adafactor `exp_avg_sq`, or its factors
/// `exp_avg_sq_row` and `exp_avg_sq_col`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments(BTreeMap<&'static str, HostTensor>);

/// A running average over updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Of the gradient.
    Mean,
    /// Of its squares.
    Squares,
    /// Of the means of its squares over each row of a matrix.
    Rows,
    /// The same over each column.
    Columns,
}

impl Moment {
    const ALL: [Moment; 4] = [Moment::Mean, Moment::Squares, Moment::Rows, Moment::Columns];

    pub fn name(self) -> &'static str {
        match self {
            Moment::Mean => "exp_avg",
            Moment::Squares => "exp_avg_sq",
            Moment::Rows => "exp_avg_sq_row",
            Moment::Columns => "exp_avg_sq_col",
        }
    }

    /// The name of its tensor.
    pub fn of(self, parameter: &str) -> String {
        format!("{parameter}.{}", self.name())
    }

    /// The shape it has of a parameter.
    pub fn shape(self, parameter: &[usize]) -> &[usize] {
        match self {
            Moment::Mean | Moment::Squares => parameter,
            Moment::Rows => parameter.get(..1).unwrap_or_default(),
            Moment::Columns => parameter.get(1..).unwrap_or_default(),
        }
    }
}

impl Moments {
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &HostTensor)> {
        self.0.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// Sets a moment that was read from a file.
    pub fn insert(&mut self, name: &str, tensor: HostTensor) -> Result<(), String> {
        let names = Moment::ALL.map(Moment::name);
        let known = names.into_iter().find(|known| *known == name);
        let name = known
            .ok_or_else(|| format!("no optimiser has a moment of that name; known: {}", names.join(", ")))?;
        self.0.insert(name, tensor);
        Ok(())
    }

    /// Two moments at once, zeros to begin with or if they have another shape.
    pub(super) fn pair(
        &mut self,
        first: (&'static str, &[usize]),
        second: (&'static str, &[usize]),
    ) -> (&mut [f32], &mut [f32]) {
        self.keep(&[first, second]);
        let mut tensors: BTreeMap<_, _> = self.0.iter_mut().map(|(name, tensor)| (*name, tensor)).collect();
        let mut take =
            |name| tensors.remove(name).map(|tensor| tensor.data.as_mut_slice()).unwrap_or_default();
        (take(first.0), take(second.0))
    }

    /// One moment, as [`Moments::pair`].
    pub(super) fn one(&mut self, moment: (&'static str, &[usize])) -> &mut [f32] {
        self.keep(&[moment]);
        self.0.get_mut(moment.0).map(|tensor| tensor.data.as_mut_slice()).unwrap_or_default()
    }

    fn keep(&mut self, wanted: &[(&'static str, &[usize])]) {
        self.0.retain(|name, tensor| {
            wanted.iter().any(|(other, shape)| other == name && *shape == tensor.shape)
        });
        for (name, shape) in wanted {
            self.0.entry(name).or_insert_with(|| HostTensor::zeros(*shape));
        }
    }
}
