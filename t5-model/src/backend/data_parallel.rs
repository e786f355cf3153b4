//! What each of several processes computes, and gradients that they add up, in buckets, while the backward pass
//! goes on.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;
use std::time::Instant;

use super::{Communication, GroupError, Ops, Precision, ProcessGroup, Reducing};
use crate::Batch;

/// Elements after which a bucket is sent: 25 MB in f32, as in PyTorch's `DistributedDataParallel`.
const BUCKET: usize = 25_000_000 / size_of::<f32>();

/// Gradients on their way. All processes add the same ones in the same order.
pub struct Buckets<'a, O: Ops> {
    ops: &'a O,
    group: &'a dyn ProcessGroup,
    /// Not sent yet, with the parameters that they belong to.
    open: Vec<(usize, O::Gradient)>,
    /// Elements of those.
    elements: usize,
    sent: Vec<Sent<'a, O>>,
    failed: Option<GroupError>,
    communication: Communication,
}

/// A bucket that was sent: parameters, and what waits for the sums of their gradients.
type Sent<'a, O> = (Vec<usize>, Reducing<'a, Vec<<O as Ops>::Gradient>>);

impl<'a, O: Ops> Buckets<'a, O> {
    pub fn new(ops: &'a O, group: &'a dyn ProcessGroup) -> Self {
        Buckets {
            ops,
            group,
            open: Vec::new(),
            elements: 0,
            sent: Vec::new(),
            failed: None,
            communication: Communication::default(),
        }
    }

    /// Adds a parameter's gradient, which has so many elements; nothing more will be added to it.
    pub fn add(&mut self, parameter: usize, gradient: O::Gradient, elements: usize) {
        self.open.push((parameter, gradient));
        self.elements += elements;
        if self.elements >= BUCKET {
            self.send();
        }
    }

    fn send(&mut self) {
        let since = Instant::now();
        let bytes = bytes_of_number(self.group) * std::mem::take(&mut self.elements);
        let (parameters, gradients): (Vec<usize>, Vec<O::Gradient>) = self.open.drain(..).unzip();
        if parameters.is_empty() || self.failed.is_some() {
            return;
        }
        match self.ops.all_reduce(self.group, gradients) {
            Ok(sums) => self.sent.push((parameters, sums)),
            Err(error) => self.failed = Some(error),
        }
        self.communication.add(bytes, since);
    }

    /// Waits for the sums, and returns them in order of the parameters, and what that took.
    pub fn finish(mut self) -> Result<(Vec<O::Gradient>, Communication), GroupError> {
        self.send();
        let since = Instant::now();
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut all = Vec::new();
        for (parameters, sums) in self.sent {
            all.extend(parameters.into_iter().zip(sums()?));
        }
        all.sort_by_key(|(parameter, _)| *parameter);
        self.communication.add(0, since);
        Ok((all.into_iter().map(|(_, gradient)| gradient).collect(), self.communication))
    }
}

/// Bytes of a number on its way.
fn bytes_of_number(group: &dyn ProcessGroup) -> usize {
    match group.options().reduce_in {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    }
}

/// The rank of each parameter, so that all have about as much: the largest first, each to the rank that has least.
pub fn owners(sizes: &[usize], world_size: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| Reverse(sizes[*index]));
    let (mut owners, mut loads) = (vec![0; sizes.len()], vec![0; world_size]);
    for index in order {
        let least = (0..world_size).min_by_key(|rank| loads[*rank]).unwrap_or(0);
        owners[index] = least;
        loads[least] += sizes[index];
    }
    owners
}

/// The parts of micro-batches that one process computes, which has these examples of the whole batch; each with
/// the number of its first.
pub fn parts<'a>(micro_batches: &'a [Batch], own: &Range<usize>) -> Vec<(usize, Cow<'a, Batch>)> {
    let mut first = 0;
    let part = |batch: &'a Batch| {
        let (begin, end) = (first, first + batch.size);
        first = end;
        let own = own.start.clamp(begin, end)..own.end.clamp(begin, end);
        let part = match own.len() {
            0 => return None,
            size if size == batch.size => Cow::Borrowed(batch),
            _ => Cow::Owned(batch.rows(own.start - begin..own.end - begin)),
        };
        Some((own.start, part))
    };
    micro_batches.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::owners;

    #[test]
    fn shares_of_parameters_are_nearly_equal() {
        assert_eq!(owners(&[5, 1, 4, 2, 2], 2), [0, 1, 1, 1, 0]);
        assert_eq!(owners(&[3, 3], 3), [0, 1]);
        assert_eq!(owners(&[1, 2, 3], 1), [0, 0, 0]);
    }
}
