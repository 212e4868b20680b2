//! Patterns in which the channels of an op's output depend on those of an input, for [`Op::reach`](crate::Op::reach).
//!
//! Channels are the columns of a value with rows and the rows of a matrix that exists once, see
//! [`Shape::channels`](crate::Shape::channels). Both slices have a flag a channel; `reached` starts without a mark.

/// Channel by channel, as where an op works element by element.
///
/// # Panics
/// When there are not as many of one as of the other.
pub fn same(output: &[bool], reached: &mut [bool]) {
    reached.copy_from_slice(output);
}

/// Each of `groups` equal parts of the output depends on all of the same part of the input.
pub fn by_group(output: &[bool], reached: &mut [bool], groups: usize) {
    let (out, input) = (output.len() / groups, reached.len() / groups);
    for group in 0..groups {
        let is_marked = output[group * out..][..out].contains(&true);
        reached[group * input..][..input].fill(is_marked);
    }
}

/// Output and input are parts of `width` channels side by side; a channel depends on those at the same place of every
/// part.
pub fn at_same_place(output: &[bool], reached: &mut [bool], width: usize) {
    for (at, to) in reached.iter_mut().enumerate() {
        *to = output.iter().skip(at % width).step_by(width).any(|&marked| marked);
    }
}

/// Marks the row, of a matrix with `cols` columns, that each of the values stands in, which are given by their places in
/// row-major order.
pub fn rows_of(values: impl Iterator<Item = usize>, cols: usize, reached: &mut [bool]) {
    values.for_each(|at| reached[at / cols] = true);
}

/// The marked channels.
pub fn marked(channels: &[bool]) -> impl Iterator<Item = usize> {
    channels.iter().enumerate().filter(|(_, marked)| **marked).map(|(at, _)| at)
}
