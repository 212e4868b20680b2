//! What an op says about the channels that its output depends on, against what its reference does.

use super::Case;
use super::expected::{Data, STEP, alone};
use crate::op::{Matrix, Op};
use crate::plan::op_of;
use crate::shape::{Shape, Space};

/// Moves each channel of each input a little: a channel of the output that moves with it must say that it depends on
/// it. A loss has no channels, and depends on what moves any of its terms.
pub(super) fn check(case: &Case, data: &Data) -> Result<(), String> {
    let (graph, output) = alone(case).map_err(|e| e.to_string())?;
    let (root, _) = graph.root(output);
    let (op, inputs) = op_of(&graph, root.index());
    let shapes: Vec<Shape> = inputs.iter().map(|&v| graph.shape(v)).collect();
    let shape = graph.shape(root);
    let tables = data.table_matrices(&graph);
    for i in 0..shapes.len() {
        let depends: Vec<Vec<bool>> = match shape.channels() {
            0 => vec![depends(op, &shapes, i, &[])],
            channels => (0..channels).map(|j| depends(op, &shapes, i, &one_of(channels, j))).collect(),
        };
        for channel in 0..shapes[i].channels() {
            let mut moved = data.seen.clone();
            move_channel(&mut moved[i], shapes[i], channel);
            let after = op.reference_drawn(&moved, &tables, &data.batch, &data.draws());
            let mut found = moved_channels(&data.output, &after, shape);
            if let Some(j) = found.find(|&j| !depends[j][channel]) {
                return Err(format!(
                    "channel {channel} of input {i} moves channel {j} of the output, which `reach` denies"
                ));
            }
        }
    }
    Ok(())
}

fn one_of(channels: usize, marked: usize) -> Vec<bool> {
    (0..channels).map(|c| c == marked).collect()
}

fn depends(op: &dyn Op, inputs: &[Shape], i: usize, output: &[bool]) -> Vec<bool> {
    let mut reached = vec![false; inputs[i].channels()];
    op.reach(inputs, i, output, &mut reached);
    reached
}

/// Different steps, so that their effects do not cancel.
fn move_channel(input: &mut Matrix, shape: Shape, channel: usize) {
    let cols = input.cols;
    for (at, v) in input.data.iter_mut().enumerate() {
        if channel_of(shape, cols, at) == channel {
            *v += STEP * (1.0 + at as f64);
        }
    }
}

fn channel_of(shape: Shape, cols: usize, at: usize) -> usize {
    if shape.space == Space::Once { at / cols } else { at % cols }
}

/// What is not the same to the last bit, of a computation that does the same with the rest.
fn moved_channels(before: &Matrix, after: &Matrix, shape: Shape) -> impl Iterator<Item = usize> {
    let pairs = before.data.iter().zip(&after.data).enumerate();
    let moved = pairs.filter(|(_, (before, after))| before != after);
    moved.map(move |(at, _)| if shape.channels() == 0 { 0 } else { channel_of(shape, before.cols, at) })
}
