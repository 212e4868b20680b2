//! Matrices in device memory.

/// What a value is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Element {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl Element {
    /// Bytes of a value.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }
}

/// What products multiply in; sums are f32 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32, without tensor cores: to check the others against.
    #[default]
    F32,
    /// Operands rounded to 10 bits behind the point (tf32), on tensor cores.
    Tf32,
    /// Operands rounded to 7 bits behind the point (bf16), on tensor cores.
    Bf16,
}

/// A matrix in device memory; what a `Mat` of `common.cuh` is. Whoever launches a kernel on it vouches for the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMat {
    /// Address of the first value; a multiple of the size of one.
    pub address: u64,
    /// Address of the number of rows that are there, a u32 of device memory that may change from launch to launch of a
    /// recorded graph and is at most [`rows`](DeviceMat::rows); 0 where all are.
    pub live_rows: u64,
    /// Most rows.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
    /// Values from one row to the next.
    pub stride: u32,
    /// What a value is.
    pub element: Element,
}

impl DeviceMat {
    /// A matrix of f32 whose rows, `cols` values each, follow one another and are all there.
    pub fn new(address: u64, rows: u32, cols: u32) -> DeviceMat {
        DeviceMat { address, live_rows: 0, rows, cols, stride: cols, element: Element::F32 }
    }

    /// Columns `from .. from + count`.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn columns(self, from: u32, count: u32) -> DeviceMat {
        assert!(from + count <= self.cols, "columns {from}..{} of {}", from + count, self.cols);
        DeviceMat { address: self.address + u64::from(from) * self.element.bytes(), cols: count, ..self }
    }

    /// Whether every four values that begin at a multiple of four can be read at once.
    pub fn has_quads(self) -> bool {
        self.address.is_multiple_of(4 * self.element.bytes()) && self.stride.is_multiple_of(4)
    }

    /// As the kernels read it: address, live rows, rows, columns, stride, element (0 for f32, 1 for bf16).
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.live_rows.to_le_bytes());
        let element = u32::from(self.element == Element::Bf16);
        for (i, value) in [self.rows, self.cols, self.stride, element].into_iter().enumerate() {
            bytes[16 + 4 * i..][..4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}
