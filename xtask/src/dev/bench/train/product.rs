use std::time::Instant;

use t5_model::backend::kernels::matmul::{Into, Matrix, Threads, matmul};

/// The square f32 matrix product that rates are compared with.
pub struct SquareProduct {
    size: usize,
    factor: Vec<f32>,
    product: Vec<f32>,
    /// Seconds of the fastest run.
    best: f64,
}

impl SquareProduct {
    pub fn new(size: usize) -> Self {
        let (factor, product) = (vec![0.5; size * size], vec![0.0; size * size]);
        SquareProduct { size, factor, product, best: f64::INFINITY }
    }

    /// Times one more run, on all threads.
    pub fn run(&mut self) {
        let factor = Matrix::new(&self.factor, self.size, self.size);
        let start = Instant::now();
        matmul(&mut self.product, self.size, factor, factor, Into::Replace, Threads::All);
        self.best = self.best.min(start.elapsed().as_secs_f64());
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Operations per second of the fastest run.
    pub fn rate(&self) -> f64 {
        2.0 * (self.size as f64).powi(3) / self.best
    }
}
