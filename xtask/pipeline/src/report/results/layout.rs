//! Where the stages of a graph stand in a picture: layers from left to right, so that every link leads to
//! the right.

use serde::Serialize;

/// A cell of a grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// From the left; a stage is to the right of everything that it takes.
    pub column: usize,
    /// From the top, in half rows, so that a column can be centred.
    pub row: usize,
}

/// The places of nodes, of which `inputs` gives those that each takes from. Nodes come after their inputs.
///
/// Longest-path layering, then a few sweeps that order each column by the mean place of its neighbours, as
/// Sugiyama et al. do (1981).
pub fn places(inputs: &[Vec<usize>]) -> Vec<Place> {
    let mut columns = vec![0usize; inputs.len()];
    for (at, from) in inputs.iter().enumerate() {
        columns[at] =
            from.iter().filter(|from| **from < at).map(|from| columns[*from] + 1).max().unwrap_or(0);
    }
    // A node that nothing holds on the left stands just before the first that takes from it.
    for at in (0..inputs.len()).rev() {
        let takers = (0..inputs.len()).filter(|other| inputs[*other].contains(&at) && *other > at);
        let first = takers.map(|taker| columns[taker]).min();
        if let Some(first) = first.filter(|_| inputs[at].is_empty()) {
            columns[at] = first.saturating_sub(1);
        }
    }
    let width = columns.iter().max().map_or(0, |last| last + 1);
    let mut layers: Vec<Vec<usize>> =
        (0..width).map(|column| (0..inputs.len()).filter(|at| columns[*at] == column).collect()).collect();
    let mut rows = vec![0.0; inputs.len()];
    number(&layers, &mut rows);
    for sweep in 0..4 {
        let order: Vec<usize> =
            if sweep % 2 == 0 { (0..width).collect() } else { (0..width).rev().collect() };
        for column in order {
            let key = |at: usize| {
                let neighbours: Vec<f64> = match sweep % 2 {
                    0 => inputs[at].iter().filter_map(|from| rows.get(*from).copied()).collect(),
                    _ => (0..inputs.len())
                        .filter(|other| inputs[*other].contains(&at))
                        .map(|other| rows[other])
                        .collect(),
                };
                match neighbours.len() {
                    0 => rows[at],
                    count => neighbours.iter().sum::<f64>() / count as f64,
                }
            };
            let mut keyed: Vec<(f64, usize)> = layers[column].iter().map(|at| (key(*at), *at)).collect();
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
            layers[column] = keyed.into_iter().map(|(_, at)| at).collect();
            number(&layers[column..=column], &mut rows);
        }
    }
    let height = layers.iter().map(Vec::len).max().unwrap_or(0);
    let mut places = vec![Place::default(); inputs.len()];
    for (column, layer) in layers.iter().enumerate() {
        for (row, at) in layer.iter().enumerate() {
            places[*at] = Place { column, row: height - layer.len() + 2 * row };
        }
    }
    places
}

/// Rows of the nodes of each layer, centred around 0.
fn number(layers: &[Vec<usize>], rows: &mut [f64]) {
    for layer in layers {
        for (row, at) in layer.iter().enumerate() {
            rows[*at] = row as f64 - (layer.len() as f64 - 1.0) / 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, places};

    #[test]
    fn every_link_leads_to_the_right_and_no_two_share_a_place() {
        // The quickstart's: a vocabulary, two small models, a baseline, three fusions and their trainings.
        let inputs: Vec<Vec<usize>> = vec![
            vec![],
            vec![0],
            vec![0],
            vec![0],
            vec![1, 2],
            vec![4, 0],
            vec![1, 2],
            vec![6, 0],
            vec![1],
            vec![8, 0],
        ];
        let places = places(&inputs);
        for (at, from) in inputs.iter().enumerate() {
            assert!(from.iter().all(|from| places[*from].column < places[at].column), "{at}");
        }
        let mut sorted: Vec<(usize, usize)> = places.iter().map(|place| (place.column, place.row)).collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), inputs.len());
        let columns: Vec<usize> = places.iter().map(|place| place.column).collect();
        assert_eq!(columns, [0, 1, 1, 1, 2, 3, 2, 3, 2, 3]);
    }

    #[test]
    fn odd_graphs() {
        assert!(places(&[]).is_empty());
        assert_eq!(places(&[vec![]]), [Place::default()]);
        // Something that nothing else takes, beside a chain; a damaged file may name what comes later.
        assert_eq!(places(&[vec![1], vec![], vec![]]).len(), 3);
    }
}
