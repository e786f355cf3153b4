//! The running averages that an optimiser keeps for a parameter.

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

    /// The name of its tensor for a parameter.
    pub fn of(self, parameter: &str) -> String {
        format!("{parameter}.{}", self.name())
    }

    /// Its shape for a parameter of the given shape.
    pub fn shape(self, parameter: &[usize]) -> &[usize] {
        match self {
            Moment::Mean | Moment::Squares => parameter,
            Moment::Rows => parameter.get(..1).unwrap_or_default(),
            Moment::Columns => parameter.get(1..).unwrap_or_default(),
        }
    }
}

/// The running averages that an optimiser keeps for one parameter: AdamW's mean and squares, Muon's mean, or
/// Adafactor's squares or their factors, rows and columns. `T` is a tensor where the update is computed.
///
/// A requested average that is missing or has another shape starts as zeros. Those of other optimisers are
/// dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<T>([Option<Kept<T>>; 4]); // in the order of `Moment::ALL`

#[derive(Clone, Debug, PartialEq)]
struct Kept<T> {
    shape: Vec<usize>,
    tensor: T,
}

impl<T> Default for Moments<T> {
    fn default() -> Self {
        Moments([const { None }; 4])
    }
}

impl<T> Moments<T> {
    /// Averages of the gradient and of its squares.
    pub fn mean_and_squares(
        &mut self,
        parameter: &[usize],
        zeros: impl Fn(&[usize]) -> T,
    ) -> (&mut T, &mut T) {
        let [mean, squares, rows, columns] = &mut self.0;
        (*rows, *columns) = (None, None);
        (keep(mean, parameter, &zeros), keep(squares, parameter, &zeros))
    }

    /// The average of the gradient.
    pub fn mean(&mut self, parameter: &[usize], zeros: impl Fn(&[usize]) -> T) -> &mut T {
        let [mean, squares, rows, columns] = &mut self.0;
        (*squares, *rows, *columns) = (None, None, None);
        keep(mean, parameter, &zeros)
    }

    /// The average of the gradient's squares.
    pub fn squares(&mut self, parameter: &[usize], zeros: impl Fn(&[usize]) -> T) -> &mut T {
        let [mean, squares, rows, columns] = &mut self.0;
        (*mean, *rows, *columns) = (None, None, None);
        keep(squares, parameter, &zeros)
    }

    /// Averages of the means of the gradient's squares over each row and over each column of a matrix.
    pub fn rows_and_columns(
        &mut self,
        parameter: &[usize],
        zeros: impl Fn(&[usize]) -> T,
    ) -> (&mut T, &mut T) {
        let [mean, squares, rows, columns] = &mut self.0;
        (*mean, *squares) = (None, None);
        let column = Moment::Columns.shape(parameter);
        (keep(rows, Moment::Rows.shape(parameter), &zeros), keep(columns, column, &zeros))
    }

    /// The averages present, by their names in files: `exp_avg` and `exp_avg_sq`; `exp_avg_sq_row` and
    /// `exp_avg_sq_col`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        let named = Moment::ALL.into_iter().zip(&self.0);
        named.filter_map(|(moment, kept)| kept.as_ref().map(|kept| (moment.name(), &kept.tensor)))
    }

    /// Sets a moment read from a file.
    pub fn insert(&mut self, name: &str, shape: &[usize], tensor: T) -> Result<(), String> {
        let place = Moment::ALL.iter().position(|moment| moment.name() == name).ok_or_else(|| {
            let names = Moment::ALL.map(Moment::name).join(", ");
            format!("no optimiser has a moment of that name; known: {names}")
        })?;
        self.0[place] = Some(Kept { shape: shape.to_vec(), tensor });
        Ok(())
    }

    /// The same averages as other tensors.
    pub fn map<U>(self, mut tensor: impl FnMut(T) -> U) -> Moments<U> {
        let mut map = |kept: Kept<T>| Kept { shape: kept.shape, tensor: tensor(kept.tensor) };
        Moments(self.0.map(|kept| kept.map(&mut map)))
    }
}

fn keep<'a, T>(kept: &'a mut Option<Kept<T>>, shape: &[usize], zeros: impl Fn(&[usize]) -> T) -> &'a mut T {
    if kept.as_ref().is_some_and(|kept| kept.shape != shape) {
        *kept = None;
    }
    &mut kept.get_or_insert_with(|| Kept { shape: shape.to_vec(), tensor: zeros(shape) }).tensor
}
