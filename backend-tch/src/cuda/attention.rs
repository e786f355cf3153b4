//! Flash attention with T5's bias.

use t5_model::backend::DropoutDraw;
use tch::{Kind, Tensor};

use super::{Argument, Kernel, Kernels, Source, Unit, at, at_option};
use crate::tensor::beside;

/// The number of queries and keys per tile.
const TILE: i64 = 64;
/// The number of features that a tile has room for: of usual heads, and of wide ones.
const FEATURES: [i64; 2] = [64, 128];

/// Two stages of 64 sums of exponentials and 64 deltas; or of the dropout bits of 64 queries.
const STAGED: i64 = 1024;

/// The same layout as in `tiles.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    heads: i32,
    queries: i32,
    keys: i32,
    features: i32,
    causal: i32,
    group: i32,
    batch: i32,
    keep: f32,
    q: [i64; 2],
    k: [i64; 2],
    v: [i64; 2],
    o: [i64; 2],
    d_o: [i64; 2],
    dq: [i64; 2],
    dk: [i64; 2],
    dv: [i64; 2],
}

impl Argument for Shape {}

/// The result of attention, with what its backward pass needs.
pub struct Flash {
    heads: i64,
    causal: bool,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// `[heads, query + key - 1]`, f32: the bias of key - query + queries - 1.
    relative: Option<Tensor>,
    /// `[batch, key]`, 0 for a hidden key.
    visible: Option<Tensor>,
    dropout: Option<Kept>,
    output: Tensor,
    /// log2 of the scores' sums of exponentials, `[batch, heads, query]`.
    lse: Tensor,
}

/// Which probabilities dropout keeps.
struct Kept {
    /// `[batch, heads, query, 2 · tiles of keys]`, a bit for each.
    bits: Tensor,
    /// The factor of those.
    factor: f32,
}

/// What attention does besides multiplying.
pub struct How<'a> {
    pub heads: i64,
    pub causal: bool,
    /// As in [`Flash`].
    pub relative: Option<Tensor>,
    /// As in [`Flash`].
    pub visible: Option<Tensor>,
    pub dropout: Option<&'a DropoutDraw>,
}

/// Strides of examples and of positions, in elements.
fn distances(x: &Tensor) -> [i64; 2] {
    let stride = x.stride();
    [stride[0], stride[1]]
}

/// Whether heads of `d_kv` features fit the kernels' tiles, in whole vectors.
pub fn fits_tiles(d_kv: i64) -> bool {
    d_kv <= FEATURES[1] && d_kv % 8 == 0
}

fn is_wide(features: i64) -> bool {
    features > FEATURES[0]
}

/// The shared memory that the kernels need at most, in bytes.
fn shared_memory(features: i64, positions: i64, biased: bool) -> i64 {
    let longest = tiles(positions);
    let sums = if biased { diagonals(longest) } else { 0 };
    of_tiles(6, features) + 2 * STAGED + 4 * TILE * (longest + 1) + sums
}

/// The most positions, of queries or keys, of which blocks with `shared` bytes of shared memory can attend to
/// all with T5's bias.
pub fn most_positions(features: i64, shared: i64) -> i64 {
    let fits = |count: &i64| shared_memory(features, count * TILE, true) <= shared;
    TILE * (1..).take_while(fits).last().unwrap_or(0)
}

/// Bytes of shared memory for `count` tiles in bf16.
fn of_tiles(count: i64, features: i64) -> i64 {
    count * TILE * FEATURES[usize::from(is_wide(features))] * 2
}

fn tiles(positions: i64) -> i64 {
    (positions + TILE - 1) / TILE
}

impl Kernels {
    /// Whether the kernels support these `[batch, length, heads · d_kv]` tensors.
    pub fn can_attend(&self, heads: i64, q: &Tensor, k: &Tensor, v: &Tensor, biased: bool) -> bool {
        let fits = |x: &Tensor| {
            let stride = x.stride();
            x.kind() == Kind::BFloat16
                && stride[2] == 1
                && stride[0] % 8 == 0
                && stride[1] % 8 == 0
                && (x.data_ptr() as u64).is_multiple_of(16)
        };
        let features = q.size()[2] / heads;
        let shared = shared_memory(features, k.size()[1].max(q.size()[1]), biased);
        fits_tiles(features) && [q, k, v].into_iter().all(fits) && shared <= self.limits.shared_memory
    }

    pub fn attend(&self, [q, k, v]: [Tensor; 3], how: How<'_>) -> Flash {
        let How { heads, causal, relative, visible, dropout } = how;
        let size = q.size();
        let (batch, queries) = (size[0], size[1]);
        let dropout = dropout.map(|draw| self.kept(draw, [batch, heads, queries, k.size()[1]]));
        let output = self.empty(&size, Kind::BFloat16);
        let lse = self.empty(&[batch, heads, queries], Kind::Float);
        let flash = Flash { heads, causal, q, k, v, relative, visible, dropout, output, lse };
        let Flash { q, k, v, relative, visible, output, lse, .. } = &flash;
        // Two stages of keys and values, and the block's queries.
        let shared = of_tiles(5, flash.features()) + 4 * TILE * (tiles(k.size()[1]) + 1);
        self.launch(
            flash.kernel("attention_forward"),
            [tiles(queries), heads, batch],
            128,
            shared,
            &[
                &at(q),
                &at(k),
                &at(v),
                &at_option(relative.as_ref()),
                &at_option(visible.as_ref()),
                &flash.kept(),
                &at(output),
                &at(lse),
                &flash.shape(),
            ],
        );
        flash
    }

    /// The gradients of queries, keys and values, packed like the inputs, and of the relative bias.
    pub fn attention_gradients(&self, flash: &Flash, dy: &Tensor) -> ([Tensor; 3], Option<Tensor>) {
        let Flash { heads, q, k, v, relative, visible, output, lse, .. } = flash;
        let (batch, queries, keys) = (q.size()[0], q.size()[1], k.size()[1]);
        let [dq, dk, dv] = self.gradients_like(q, k, v);
        let deltas = self.empty(&[batch, *heads, queries], Kind::Float);
        // Enough blocks to fill the GPU a few times; the more examples each takes, the fewer partial sums of
        // the bias remain to be added.
        let blocks = batch * heads * tiles(queries);
        let group = (blocks / (8 * self.limits.multiprocessors)).clamp(1, batch);
        let groups = (batch + group - 1) / group;
        let shape = Shape {
            group: group as i32,
            d_o: distances(dy),
            dq: distances(&dq),
            dk: distances(&dk),
            dv: distances(&dv),
            ..flash.shape()
        };
        let launch = |name, grid, threads, shared, arguments: &[&dyn Argument]| {
            self.launch(flash.kernel(name), grid, threads, shared, arguments);
        };
        let rows = (8 * batch * heads * queries + 255) / 256;
        launch("attention_deltas", [rows, 1, 1], 256, 0, &[&at(output), &at(dy), &at(&deltas), &shape]);

        let [q, k, v] = [q, k, v].map(at);
        let [relative_at, visible_at] = [relative, visible].map(|tensor| at_option(tensor.as_ref()));
        let (lse, deltas_at, kept, dy_at) = (at(lse), at(&deltas), flash.kept(), at(dy));
        // What both kernels begin with.
        let inputs: [&dyn Argument; 9] =
            [&q, &k, &v, &relative_at, &visible_at, &kept, &dy_at, &lse, &deltas_at];
        let stages = if flash.dropout.is_some() { 2 * STAGED } else { STAGED };
        // Two stages of queries and gradients, and the block's keys and values; below, the reverse.
        let own_and_stages = of_tiles(6, flash.features());
        let shared = own_and_stages + stages + 4 * TILE * (tiles(queries) + 1);
        launch(
            "attention_dkv",
            [tiles(keys), *heads, batch],
            128,
            shared,
            &[&inputs[..], &[&at(&dk), &at(&dv), &shape]].concat(),
        );
        let span = TILE * (tiles(keys) + 1);
        let partial =
            relative.as_ref().map(|_| self.empty(&[*heads, tiles(queries), groups, span], Kind::Float));
        let shared = own_and_stages + 4 * span + if partial.is_some() { diagonals(tiles(keys)) } else { 0 };
        launch(
            "attention_dq",
            [tiles(queries), *heads, groups],
            128,
            shared,
            &[&inputs[..], &[&at(&dq), &at_option(partial.as_ref()), &shape]].concat(),
        );
        let drelative = partial.map(|partial| {
            let distances = queries + keys - 1;
            let drelative = self.empty(&[*heads, distances], Kind::Float);
            let (grid, sizes) =
                ([(distances + 127) / 128, *heads, 1], [tiles(queries) as i32, groups as i32]);
            launch(
                "attention_dbias",
                grid,
                128,
                0,
                &[&at(&partial), &at(&drelative), &sizes[0], &sizes[1], &shape],
            );
            drelative
        });
        ([dq, dk, dv], drelative)
    }

    /// Draws which probabilities `[batch, heads, query, key]` are kept.
    fn kept(&self, draw: &DropoutDraw, [batch, heads, queries, keys]: [i64; 4]) -> Kept {
        let words = 2 * tiles(keys);
        let bits = self.empty(&[batch, heads, queries, words], Kind::Int);
        let rows = batch * heads * queries;
        let (first, example) = draw.examples();
        let size = (rows * keys).min(i64::try_from(example).unwrap_or(i64::MAX)).max(1);
        let ([key0, key1], (threshold, factor)) = (draw.key(), draw.threshold());
        self.launch(
            attention_kernel("attention_kept", true, false),
            [(rows * words + 255) / 256, 1, 1],
            256,
            0,
            &[
                &at(&bits),
                &key0,
                &key1,
                &threshold,
                &(first as i64),
                &size,
                &rows,
                &(keys as i32),
                &(words as i32),
            ],
        );
        Kept { bits, factor }
    }

    fn gradients_like(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> [Tensor; 3] {
        let parts = |whole: &Tensor, widths: &[i64]| -> Vec<Tensor> { whole.split_with_sizes(widths, 2) };
        let width = |x: &Tensor| x.size()[2];
        let like = |whole: &Tensor| self.empty(&whole.size(), Kind::BFloat16);
        let all = [q, k, v].map(Tensor::shallow_clone);
        if let Some(whole) = beside(&all, 2) {
            let mut parts = parts(&like(&whole), &all.each_ref().map(width)).into_iter();
            return std::array::from_fn(|_| parts.next().expect("three parts"));
        }
        let [_, k, v] = all;
        let both = beside(&[k.shallow_clone(), v.shallow_clone()], 2).map_or_else(
            || [k.shallow_clone(), v.shallow_clone()].map(|x| like(&x)),
            |whole| {
                let mut parts = parts(&like(&whole), &[width(&k), width(&v)]).into_iter();
                std::array::from_fn(|_| parts.next().expect("two parts"))
            },
        );
        let [dk, dv] = both;
        [like(q), dk, dv]
    }
}

/// Shared memory for the sums of the bias gradient's diagonals, in bytes.
fn diagonals(tiles: i64) -> i64 {
    4 * (8 * tiles + 2) * 32 * 4
}

fn attention_kernel(name: &'static str, dropout: bool, wide: bool) -> Kernel {
    let variant = i64::from(dropout) + 2 * i64::from(wide);
    Kernel { unit: Unit { source: Source::Attention, bf16: true, variant }, name }
}

impl Flash {
    fn kernel(&self, name: &'static str) -> Kernel {
        attention_kernel(name, self.dropout.is_some(), is_wide(self.features()))
    }

    /// Of a head.
    fn features(&self) -> i64 {
        self.q.size()[2] / self.heads
    }

    fn kept(&self) -> u64 {
        at_option(self.dropout.as_ref().map(|kept| &kept.bits))
    }

    pub fn output(&self) -> &Tensor {
        &self.output
    }

    fn shape(&self) -> Shape {
        let Flash { heads, causal, q, k, v, dropout, output, .. } = self;
        let size = q.size();
        Shape {
            heads: *heads as i32,
            queries: size[1] as i32,
            keys: k.size()[1] as i32,
            features: self.features() as i32,
            causal: i32::from(*causal),
            group: 1,
            batch: size[0] as i32,
            keep: dropout.as_ref().map_or(1.0, |kept| kept.factor),
            q: distances(q),
            k: distances(k),
            v: distances(v),
            o: distances(output),
            ..Shape::default()
        }
    }
}
