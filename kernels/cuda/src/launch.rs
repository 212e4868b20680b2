//! A launch of a kernel, as data.

use crate::module::Family;
use crate::view::DeviceMat;

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The family that the kernel belongs to.
    pub family: &'static Family,
    /// The kernel's name in the family's PTX.
    pub kernel: &'static str,
    /// Blocks in x, y and z. A launch with a zero among them does nothing.
    pub grid: [u32; 3],
    /// Threads of a block, in one row.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Whether a block does one part of the work after the other, so that as many blocks in x as the device has
    /// multiprocessors do all of it.
    pub in_turns: bool,
    /// What the kernel is called with.
    pub arguments: Arguments,
    /// What a device of compute capability 9.0 runs in its place: the same, by instructions that it alone has.
    pub on_hopper: Option<Box<Launch>>,
}

impl Launch {
    /// With `blocks` blocks in a row and no dynamic shared memory.
    pub fn new(
        family: &'static Family,
        kernel: &'static str,
        blocks: u32,
        threads: u32,
        arguments: Arguments,
    ) -> Launch {
        let grid = [blocks, 1, 1];
        Launch { family, kernel, grid, threads, shared: 0, in_turns: false, arguments, on_hopper: None }
    }

    /// Leaves it out on [Hopper](Launch::on_hopper), where another launch does its work.
    pub(crate) fn skip_on_hopper(&mut self) {
        self.on_hopper = Some(Box::new(Launch { grid: [0; 3], ..self.clone() }));
    }
}

/// Number of blocks that cover `items` when each takes `per_block`.
///
/// # Panics
/// When there are more than a grid can have, 2^31 - 1.
pub fn blocks(items: u64, per_block: u32) -> u32 {
    let blocks = items.div_ceil(per_block.into());
    assert!(blocks <= i32::MAX as u64, "{items} items in blocks of {per_block}");
    blocks as u32
}

/// The arguments of a launch, each with its natural alignment, in the order of the kernel's parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    bytes: Vec<u8>,
    /// Offset and length of each argument.
    places: Vec<(usize, usize)>,
}

impl Arguments {
    /// No arguments yet.
    pub fn new() -> Arguments {
        Arguments::default()
    }

    /// With `bytes` more, aligned to `align`: a structure, laid out as C does.
    pub fn with_bytes(mut self, bytes: &[u8], align: usize) -> Arguments {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self.places.push((self.bytes.len(), bytes.len()));
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// With an unsigned integer.
    pub fn with_u32(self, value: u32) -> Arguments {
        self.with_bytes(&value.to_le_bytes(), 4)
    }

    /// With a number.
    pub fn with_f32(self, value: f32) -> Arguments {
        self.with_bytes(&value.to_le_bytes(), 4)
    }

    /// With a long unsigned integer, or an address in device memory.
    pub fn with_u64(self, value: u64) -> Arguments {
        self.with_bytes(&value.to_le_bytes(), 8)
    }

    /// With a matrix: a `Mat` of `common.cuh`.
    pub fn with_mat(self, mat: DeviceMat) -> Arguments {
        self.with_bytes(&mat.to_bytes(), 8)
    }

    /// Offset and length of each argument in [`Arguments::bytes`].
    pub fn places(&self) -> &[(usize, usize)] {
        &self.places
    }

    /// All arguments, as the kernel's parameters lie in memory.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
