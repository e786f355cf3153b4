//! The running averages that an optimiser keeps of a parameter.

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

/// The running averages that an optimiser keeps of one parameter: mean and squares of AdamW; of Adafactor the
/// squares, or their factors, rows and columns. `T` is a tensor where the update is computed.
///
/// An average that is asked for starts as zeros, also if it had another shape. Those of other optimisers are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<T> {
    mean: Option<Kept<T>>,
    squares: Option<Kept<T>>,
    rows: Option<Kept<T>>,
    columns: Option<Kept<T>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Kept<T> {
    shape: Vec<usize>,
    tensor: T,
}

impl<T> Default for Moments<T> {
    fn default() -> Self {
        Moments { mean: None, squares: None, rows: None, columns: None }
    }
}

impl<T> Moments<T> {
    /// Of the gradient, and of its squares.
    pub fn mean_and_squares(
        &mut self,
        parameter: &[usize],
        zeros: impl Fn(&[usize]) -> T,
    ) -> (&mut T, &mut T) {
        (self.rows, self.columns) = (None, None);
        (keep(&mut self.mean, parameter, &zeros), keep(&mut self.squares, parameter, &zeros))
    }

    /// Of the gradient's squares.
    pub fn squares(&mut self, parameter: &[usize], zeros: impl Fn(&[usize]) -> T) -> &mut T {
        (self.mean, self.rows, self.columns) = (None, None, None);
        keep(&mut self.squares, parameter, &zeros)
    }

    /// Of the means of the gradient's squares over each row and over each column of a matrix.
    pub fn rows_and_columns(
        &mut self,
        parameter: &[usize],
        zeros: impl Fn(&[usize]) -> T,
    ) -> (&mut T, &mut T) {
        (self.mean, self.squares) = (None, None);
        let (rows, columns) = (Moment::Rows.shape(parameter), Moment::Columns.shape(parameter));
        (keep(&mut self.rows, rows, &zeros), keep(&mut self.columns, columns, &zeros))
    }

    /// What there is, under the names of files: `exp_avg` and `exp_avg_sq`; `exp_avg_sq_row` and
    /// `exp_avg_sq_col`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        let all = [&self.mean, &self.squares, &self.rows, &self.columns];
        let named = Moment::ALL.into_iter().zip(all);
        named.filter_map(|(moment, kept)| kept.as_ref().map(|kept| (moment.name(), &kept.tensor)))
    }

    /// Sets a moment that was read from a file.
    pub fn insert(&mut self, name: &str, shape: &[usize], tensor: T) -> Result<(), String> {
        let moment = Moment::ALL.into_iter().find(|moment| moment.name() == name).ok_or_else(|| {
            let names = Moment::ALL.map(Moment::name).join(", ");
            format!("no optimiser has a moment of that name; known: {names}")
        })?;
        let kept = match moment {
            Moment::Mean => &mut self.mean,
            Moment::Squares => &mut self.squares,
            Moment::Rows => &mut self.rows,
            Moment::Columns => &mut self.columns,
        };
        *kept = Some(Kept { shape: shape.to_vec(), tensor });
        Ok(())
    }

    /// The same averages as other tensors.
    pub fn map<U>(self, mut tensor: impl FnMut(T) -> U) -> Moments<U> {
        let mut map =
            |kept: Option<Kept<T>>| kept.map(|kept| Kept { shape: kept.shape, tensor: tensor(kept.tensor) });
        let Moments { mean, squares, rows, columns } = self;
        Moments { mean: map(mean), squares: map(squares), rows: map(rows), columns: map(columns) }
    }
}

fn keep<'a, T>(kept: &'a mut Option<Kept<T>>, shape: &[usize], zeros: impl Fn(&[usize]) -> T) -> &'a mut T {
    if kept.as_ref().is_some_and(|kept| kept.shape != shape) {
        *kept = None;
    }
    &mut kept.get_or_insert_with(|| Kept { shape: shape.to_vec(), tensor: zeros(shape) }).tensor
}
