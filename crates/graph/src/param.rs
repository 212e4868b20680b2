//! Parameters, state and tables: what they are called, how large they are, how they start.

use crate::shape::Shape;
use manygate_core::{Buffer, Error, Result, Stream};
use std::ops::Range;
use std::sync::Arc;

/// How values start. Numbers depend on the seed and the tensor's name alone, not on the order of declaration.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// All equal.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform in ±sqrt(6 / (in + out)) for a tensor [out, in] (Glorot and Bengio, AISTATS 2010).
    XavierUniform,
    /// The same for matrices of `out` rows and `input` columns that are stored in another shape.
    XavierOf {
        /// Rows.
        out: usize,
        /// Columns.
        input: usize,
    },
    /// Each row, or a vector, in pieces, one after the other: how many values, and how they start.
    Rows(Vec<(usize, Init)>),
    /// A square of blocks of `width` values a row: those on the diagonal, and all others.
    Diagonal {
        /// Values of a block in a row.
        width: usize,
        /// On the diagonal.
        own: f32,
        /// Elsewhere.
        others: f32,
    },
}

/// A named tensor inside a parameter. Several blocks stacked by rows make one wide weight (the first layer of all
/// experts and gates, say) that is still saved, frozen and reported by its published names.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Name in checkpoints: `experts.0.0.weight`.
    pub name: String,
    /// Shape in checkpoints: `[out, in]`, or `[out]` for a bias.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
}

impl Block {
    /// A weight `[out, in]`.
    pub fn weight(name: impl Into<String>, out: usize, input: usize, init: Init) -> Block {
        Block { name: name.into(), shape: vec![out, input], init }
    }

    /// A vector `[len]`.
    pub fn vector(name: impl Into<String>, len: usize, init: Init) -> Block {
        Block { name: name.into(), shape: vec![len], init }
    }

    /// Values in the block.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the block has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    pub(crate) fn cols(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Fills `values` as `init` says.
    fn initialise(&self, seed: u64, values: &mut [f32]) {
        let stream = Stream::new(seed, 0, name_hash(&self.name));
        let fan = self.rows() + self.cols();
        let width = if self.shape.len() == 1 { self.len() } else { self.cols() };
        for (i, v) in values.iter_mut().enumerate() {
            *v = self.init.value(&stream, fan, i, width);
        }
    }
}

impl Init {
    /// Value number `i` of a tensor whose rows have `width` values, and whose rows and columns are `fan` together.
    fn value(&self, stream: &Stream, fan: usize, i: usize, width: usize) -> f32 {
        let xavier = |fan: usize| (6.0 / fan as f32).sqrt() * (2.0 * stream.uniform(i as u64, 0) - 1.0);
        match self {
            Init::Constant(c) => *c,
            Init::Normal(deviation) => deviation * stream.normal(i as u64, 0),
            Init::XavierUniform => xavier(fan),
            Init::XavierOf { out, input } => xavier(out + input),
            Init::Diagonal { width: block, own, others } => {
                if i / width == i % width / block {
                    *own
                } else {
                    *others
                }
            }
            Init::Rows(pieces) => {
                let mut column = i % width;
                for (len, init) in pieces {
                    if column < *len {
                        return init.value(stream, fan, i, width);
                    }
                    column -= len;
                }
                0.0
            }
        }
    }
}

/// A stable 64-bit hash of a name, for random streams.
pub fn name_hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

/// A parameter or state: one matrix `[rows, cols]`, made of blocks stacked by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// The blocks, top to bottom.
    pub blocks: Vec<Block>,
    /// Columns.
    pub cols: usize,
}

impl ParamSpec {
    /// Stacks `blocks`.
    ///
    /// # Errors
    /// When there is none, or their widths differ.
    pub fn new(blocks: Vec<Block>) -> Result<ParamSpec> {
        let Some(first) = blocks.first() else {
            return Err(Error::graph("parameter", "needs at least one block"));
        };
        let cols = first.cols();
        if let Some(other) = blocks.iter().find(|b| b.cols() != cols) {
            return Err(Error::graph(
                &other.name,
                format!("has {} columns, `{}` above it has {cols}", other.cols(), first.name),
            ));
        }
        Ok(ParamSpec { cols, blocks })
    }

    /// The shape of the stacked matrix.
    pub fn shape(&self) -> Shape {
        Shape::once(self.blocks.iter().map(Block::rows).sum(), self.cols)
    }
}

/// An embedding table that a graph looks up. Row 0 is the unknown row.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// Name in checkpoints: `embedding.user_id.weight`.
    pub name: String,
    /// Rows, the unknown row included.
    pub rows: usize,
    /// Values a row.
    pub dim: usize,
    /// How rows start.
    pub init: Init,
}

/// Where each parameter lies in one flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    specs: Vec<ParamSpec>,
    offsets: Vec<usize>,
    len: usize,
}

/// Parameters start on a cache line.
const ALIGN: usize = 16;

impl Layout {
    /// Lays `specs` out one after the other.
    pub fn new(specs: Vec<ParamSpec>) -> Layout {
        let mut len = 0;
        let mut offsets = Vec::with_capacity(specs.len());
        for spec in &specs {
            offsets.push(len);
            len += spec.shape().len().next_multiple_of(ALIGN);
        }
        Layout { specs, offsets, len }
    }

    /// Values in the flat buffer, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Offset of parameter `index`.
    pub fn offset(&self, index: usize) -> usize {
        self.offsets[index]
    }

    /// Every named tensor and its place in the flat buffer, in order of declaration.
    pub fn blocks(&self) -> impl Iterator<Item = (&Block, Range<usize>)> {
        self.stacks().flatten()
    }

    /// The same by parameter: tensors that are stacked to one matrix.
    pub fn stacks(&self) -> impl Iterator<Item = impl Iterator<Item = (&Block, Range<usize>)>> {
        self.specs.iter().zip(&self.offsets).map(|(spec, &start)| {
            spec.blocks.iter().scan(start, |at, block| {
                let range = *at..*at + block.len();
                *at = range.end;
                Some((block, range))
            })
        })
    }
}

/// Values of one set of parameters (or of the state), by layout. A plan runs on any set with its layout.
#[derive(Clone, Debug)]
pub struct Parameters {
    layout: Arc<Layout>,
    /// The flat values. Padding between parameters is zero and stays so.
    pub values: Buffer,
}

impl Parameters {
    /// Initial values for `seed`.
    pub fn initial(layout: Arc<Layout>, seed: u64) -> Parameters {
        let mut values = Buffer::zeroed(layout.len());
        for (block, range) in layout.blocks() {
            block.initialise(seed, &mut values[range]);
        }
        Parameters { layout, values }
    }

    /// The layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Whether they are laid out as `layout`: the same one, as a rule, so that a step does not compare names.
    pub(crate) fn has_layout(&self, layout: &Arc<Layout>) -> bool {
        Arc::ptr_eq(&self.layout, layout) || self.layout == *layout
    }

    /// Moves every value a share of the way to that of `target`: `θ ← (1 − share) θ + share θ'`. A target network follows
    /// its online network so, and with share 1/n an average takes in its n-th set. 0 leaves all as it is, 1 copies.
    ///
    /// # Errors
    /// When `target` is laid out in another way.
    pub fn move_towards(&mut self, target: &Parameters, share: f32) -> Result<()> {
        if !target.has_layout(&self.layout) {
            return Err(Error::graph("parameters", "the target is laid out in another way"));
        }
        for (value, target) in self.values.iter_mut().zip(&target.values[..]) {
            *value = (1.0 - share) * *value + share * target;
        }
        Ok(())
    }

    /// Every named tensor with its values.
    pub fn tensors(&self) -> impl Iterator<Item = (&Block, &[f32])> {
        self.layout.blocks().map(|(block, range)| (block, &self.values[range]))
    }

    /// The values of the tensor `name`.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn get(&self, name: &str) -> Result<&[f32]> {
        let found = self.tensors().find(|(block, _)| block.name == name);
        found.map(|(_, values)| values).ok_or_else(|| Error::graph(name, "there is no tensor of this name"))
    }

    /// Overwrites the tensor `name`.
    ///
    /// # Errors
    /// When there is no such tensor, or its length differs.
    pub fn set(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let found = self.layout.blocks().find(|(block, _)| block.name == name);
        let Some((block, range)) = found else {
            return Err(Error::graph(name, "there is no tensor of this name"));
        };
        if values.len() != range.len() {
            return Err(Error::graph(
                name,
                format!("has shape {:?}, {} values were given", block.shape, values.len()),
            ));
        }
        self.values[range].copy_from_slice(values);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacked() -> ParamSpec {
        ParamSpec::new(vec![
            Block::weight("a.weight", 2, 3, Init::XavierUniform),
            Block::weight("b.weight", 1, 3, Init::Normal(0.1)),
        ])
        .unwrap()
    }

    #[test]
    fn blocks_of_a_stacked_parameter_are_adjacent() {
        let layout = Layout::new(vec![
            stacked(),
            ParamSpec::new(vec![Block::vector("bias", 3, Init::Constant(0.5))]).unwrap(),
        ]);
        let places: Vec<_> = layout.blocks().map(|(b, r)| (b.name.clone(), r)).collect();
        assert_eq!(places, [("a.weight".into(), 0..6), ("b.weight".into(), 6..9), ("bias".into(), 16..19)]);
        assert_eq!(layout.len(), 32);
    }

    #[test]
    fn initial_values_depend_on_name_and_seed_alone() {
        let one = Parameters::initial(Arc::new(Layout::new(vec![stacked()])), 7);
        let mut specs = vec![ParamSpec::new(vec![Block::vector("first", 5, Init::Constant(1.0))]).unwrap()];
        specs.push(stacked());
        let two = Parameters::initial(Arc::new(Layout::new(specs)), 7);
        assert_eq!(one.tensors().next().unwrap().1, two.tensors().nth(1).unwrap().1);
        let other = Parameters::initial(one.layout().clone(), 8);
        assert_ne!(one.values[..], other.values[..]);
    }

    #[test]
    fn widths_must_agree() {
        let e = ParamSpec::new(vec![
            Block::weight("a", 2, 3, Init::XavierUniform),
            Block::weight("b", 2, 4, Init::XavierUniform),
        ]);
        assert_eq!(e.unwrap_err().to_string(), "b: has 4 columns, `a` above it has 3");
    }
}
