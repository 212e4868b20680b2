//! Kernels on rows of embedding tables against those of the CPU.

mod batch;
mod lookup;
mod sort;
mod update;

use manygate_cuda::embedding::DeviceTable;
use manygate_cuda_tests::Gpu;

/// Numbers of a seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `end`, which is above 0.
    fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    fn ids(&mut self, count: usize, rows: u32) -> Vec<u32> {
        (0..count).map(|_| self.below(rows)).collect()
    }

    /// Between -1 and 1.
    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// Offsets of `rows` lists of fewer than `longest` ids each.
    fn offsets(&mut self, rows: usize, longest: u32) -> Vec<u32> {
        let mut offsets = vec![0];
        for row in 0..rows {
            offsets.push(offsets[row] + self.below(longest));
        }
        offsets
    }
}

/// A table on both sides.
struct Table {
    data: Vec<f32>,
    rows: u32,
    dim: u32,
    stride: u32,
    device: DeviceTable,
}

impl Table {
    /// Of random values, with `state` more in each row.
    fn new(gpu: &mut Gpu, numbers: &mut Numbers, rows: u32, dim: u32, state: u32) -> Table {
        let stride = dim + state;
        let data = numbers.values((rows * stride) as usize);
        let device = DeviceTable { address: gpu.upload(&data), rows, dim, stride };
        Table { data, rows, dim, stride, device }
    }

    fn rows(&self) -> manygate_kernels::embedding::Rows<'_> {
        let [rows, dim, stride] = [self.rows, self.dim, self.stride].map(|n| n as usize);
        manygate_kernels::embedding::Rows::new(&self.data, rows, dim, stride)
    }
}

/// The f32 that a bf16 near `value` is.
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
