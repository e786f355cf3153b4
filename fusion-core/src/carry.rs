//! Carries an optimiser's memory of gradients from parents to their child. The child's gradient in a place is a known
//! multiple of the parent's, [`Placement::gradient`](crate::plan::Placement::gradient), and so are the running means of the
//! gradient and of its squares. Which of these an optimiser keeps is up to the caller.

use crate::plan::geometry::{Geometry, Segment};
use crate::plan::{FusionPlan, PlannedParam};
use crate::{Error, HostTensor, Result};

/// Running means of the squares of a parameter's gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum Squares {
    /// One for each element.
    Elements(HostTensor),
    /// Those of a matrix, factored: an element's is `row · column / mean` (Adafactor, arXiv 1804.04235).
    Factors {
        /// The mean over each row.
        rows: Vec<f32>,
        /// The mean over each column.
        columns: Vec<f32>,
        /// The mean over all rows.
        mean: f64,
    },
}

impl Squares {
    /// Factored squares, from the means over each row and over each column.
    pub fn factors(rows: Vec<f32>, columns: Vec<f32>) -> Self {
        let mean = rows.iter().map(|row| f64::from(*row)).sum::<f64>() / rows.len() as f64;
        Squares::Factors { rows, columns, mean }
    }

    fn shape(&self) -> Vec<usize> {
        match self {
            Squares::Elements(tensor) => tensor.shape.clone(),
            Squares::Factors { rows, columns, .. } => vec![rows.len(), columns.len()],
        }
    }

    /// The elements of a run that starts at `first` and stays in its row.
    fn run(&self, first: usize, len: usize) -> Box<dyn Iterator<Item = f64> + '_> {
        match self {
            Squares::Elements(tensor) => Box::new(tensor.data[first..][..len].iter().map(|v| f64::from(*v))),
            Squares::Factors { rows, columns, mean } => {
                let row = f64::from(rows[first / columns.len()]);
                let row = if *mean == 0.0 { 0.0 } else { row / mean };
                Box::new(columns[first % columns.len()..][..len].iter().map(move |v| row * f64::from(*v)))
            }
        }
    }
}

/// What to assume of the squares of the gradients of cross-connections, which no parent has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSquares {
    /// Zero, as if there had been no gradient.
    Zero,
    /// For matrices, what factors that agree with each parent's in its own place would predict: a gradient is a sum of
    /// products of what flows back into a row and what flowed into a column. Zero where the row or the column belongs to
    /// an absent parent.
    Estimated,
}

/// Derives what is known of a parameter's gradients from what is known of its sources'.
pub struct Carry<'a> {
    plan: &'a FusionPlan,
    param: &'a PlannedParam,
    geometry: Geometry,
    /// For each placement, the gradient in units of the source's, and its share if it is averaged with others.
    gradients: Vec<(f64, f64)>,
}

/// What is known of a row or a column of squares.
#[derive(Clone, Default)]
struct Line {
    sum: f64,
    count: usize,
    /// The sum over the same elements of the mean of the place they are in.
    places: f64,
}

impl Line {
    /// The line's factor for the elements that no parent has. Within a place, whose mean is `places / count`, the product
    /// of a row's and a column's factor is `row · column / mean`.
    fn factor(&self) -> f64 {
        if self.places > 0.0 { self.sum / (self.count as f64 * self.places).sqrt() } else { 0.0 }
    }
}

impl<'a> Carry<'a> {
    /// For a parameter of a plan that passed validation.
    ///
    /// # Errors
    /// [`Error::NoGradient`] if a place's gradient is no constant multiple of its source's.
    pub fn new(plan: &'a FusionPlan, param: &'a PlannedParam) -> Result<Self> {
        let overlap = param.has_overlap();
        let gradients = param.placements.iter().map(|placement| {
            let parent = placement.parent;
            let gradient = placement.gradient.ok_or_else(|| Error::NoGradient {
                parameter: param.name.clone(),
                parent: plan.parents.get(parent).map_or_else(String::new, |parent| parent.label.clone()),
            })?;
            Ok((gradient, if overlap { placement.scale } else { 1.0 }))
        });
        let gradients = gradients.collect::<Result<_>>()?;
        Ok(Carry { plan, param, geometry: Geometry::new(param).with_all_cross(), gradients })
    }

    /// The running mean of the gradient, from those of the placements' sources. Zero for cross-connections.
    pub fn means(&self, sources: &[&HostTensor]) -> Result<HostTensor> {
        self.check(sources.iter().map(|source| source.shape.clone()).collect())?;
        let mut child = HostTensor::zeros(self.param.shape());
        self.runs(|placement, line, run| {
            let (gradient, share) = self.gradients[placement];
            let source = &sources[placement].data[run.source..][..run.len];
            let out = &mut child.data[line * self.geometry.line + run.child..][..run.len];
            let values = source.iter().map(|value| (gradient * share * f64::from(*value)) as f32);
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        });
        self.finite(child)
    }

    /// The running means of the squares of each element.
    pub fn squares(&self, sources: &[&Squares], cross: CrossSquares) -> Result<HostTensor> {
        self.check(sources.iter().map(|source| source.shape()).collect())?;
        let mut child = HostTensor::zeros(self.param.shape());
        let width = self.geometry.line;
        self.square_runs(sources, |_, line, run, values| {
            let out = &mut child.data[line * width + run.child..][..run.len];
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value as f32);
        });
        if cross == CrossSquares::Estimated {
            let known = self.known(sources);
            self.cross(&known, |row, column, square| child.data[row * width + column] = square as f32);
        }
        self.finite(child)
    }

    /// The means over each row `[rows]` and over each column `[columns]` of the squares of a matrix, as
    /// [`Carry::squares`] gives them.
    pub fn factors(&self, sources: &[&Squares], cross: CrossSquares) -> Result<[HostTensor; 2]> {
        self.check(sources.iter().map(|source| source.shape()).collect())?;
        let known = self.known(sources);
        let mut sums =
            [&known[0], &known[1]].map(|lines| lines.iter().map(|line| line.sum).collect::<Vec<_>>());
        if cross == CrossSquares::Estimated {
            self.cross(&known, |row, column, square| {
                sums[0][row] += square;
                sums[1][column] += square;
            });
        }
        let [rows, columns] = sums;
        let (height, width) = (rows.len() as f64, columns.len() as f64);
        let mean = |sums: Vec<f64>, count: f64| {
            let data: Vec<f32> = sums.into_iter().map(|sum| (sum / count) as f32).collect();
            self.finite(HostTensor { shape: vec![data.len()], data })
        };
        Ok([mean(rows, width)?, mean(columns, height)?])
    }

    /// Visits the placed elements in runs along lines of the child: passes the placement, the line, and the run with its
    /// first element in the source.
    fn runs(&self, mut visit: impl FnMut(usize, usize, Segment)) {
        let mut row = Vec::new();
        for line in 0..self.param.elements() / self.geometry.line {
            self.geometry.row(line, &mut row);
            for (placement, part) in self.geometry.parts.iter().enumerate() {
                let Some(first) = part.line(&row) else { continue };
                for run in &part.segments {
                    visit(placement, line, Segment { source: first + run.source, ..*run });
                }
            }
        }
    }

    /// Visits the same runs, and passes the squares that each has in the child, too.
    fn square_runs(
        &self,
        sources: &[&Squares],
        mut visit: impl FnMut(usize, usize, Segment, &mut dyn Iterator<Item = f64>),
    ) {
        self.runs(|placement, line, run| {
            let (gradient, share) = self.gradients[placement];
            let factor = gradient * gradient * share;
            let values = sources[placement].run(run.source, run.len);
            visit(placement, line, run, &mut values.map(|value| factor * value));
        });
    }

    /// Sums up what is known of the rows and columns of a matrix.
    fn known(&self, sources: &[&Squares]) -> [Vec<Line>; 2] {
        let width = self.geometry.line;
        let mut rows = vec![Line::default(); self.param.elements() / width];
        let mut columns = vec![Line::default(); width];
        let mut places = vec![Line::default(); sources.len()];
        self.square_runs(sources, |placement, line, run, values| {
            let mut total = 0.0;
            for (column, value) in columns[run.child..][..run.len].iter_mut().zip(values) {
                column.sum += value;
                total += value;
            }
            rows[line].sum += total;
            places[placement].sum += total;
            places[placement].count += run.len;
        });
        self.runs(|placement, line, run| {
            let Line { sum, count, .. } = places[placement];
            let mean = sum / count as f64;
            let add = |line: &mut Line, elements: usize| {
                line.count += elements;
                line.places += mean * elements as f64;
            };
            add(&mut rows[line], run.len);
            columns[run.child..][..run.len].iter_mut().for_each(|column| add(column, 1));
        });
        [rows, columns]
    }

    /// Visits the cross-connections of a matrix: row, column, and the estimated square.
    fn cross(&self, [rows, columns]: &[Vec<Line>; 2], mut visit: impl FnMut(usize, usize, f64)) {
        if self.param.dims.len() != 2 {
            return;
        }
        let columns: Vec<f64> = columns.iter().map(Line::factor).collect();
        for (row, line) in rows.iter().enumerate() {
            let factor = line.factor();
            for (start, end) in self.geometry.cross(&[row]) {
                (start..end).for_each(|column| visit(row, column, factor * columns[column]));
            }
        }
    }

    /// Compares the shapes of the sources with the plan.
    fn check(&self, shapes: Vec<Vec<usize>>) -> Result<()> {
        let (expected, found) = (self.param.placements.len(), shapes.len());
        if expected != found {
            return Err(Error::MomentCount { parameter: self.param.name.clone(), expected, found });
        }
        for (placement, found) in self.param.placements.iter().zip(shapes) {
            let expected = placement.source_shape(&self.param.dims);
            if expected != found {
                let parent = self.plan.parents.get(placement.parent);
                return Err(Error::SourceShape {
                    parent: parent.map_or_else(String::new, |parent| parent.label.clone()),
                    tensor: placement.source.clone(),
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    fn finite(&self, tensor: HostTensor) -> Result<HostTensor> {
        match tensor.data.iter().find(|value| !value.is_finite()) {
            Some(&value) => Err(Error::NonFiniteMoment { parameter: self.param.name.clone(), value }),
            None => Ok(tensor),
        }
    }
}
