use crate::testing::{close, values};
use manygate_kernels::embedding::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::MatMut;
use proptest::prelude::*;

proptest! {
    #[test]
    fn pools_and_scales_like_f64(
        dim in 0usize..40, state in 0usize..3, mean: bool, seed: u64,
        bags in prop::collection::vec(prop::collection::vec(0u32..9, 0..30), 0..8),
    ) {
        let stride = dim + state;
        let data = values(seed, 9 * stride, 1.0);
        let pooling = if mean { Pooling::Mean } else { Pooling::Sum };
        let ids = bags.concat();
        let mut offsets = vec![0];
        offsets.extend(bags.iter().scan(0, |end, bag| { *end += bag.len() as u32; Some(*end) }));
        for isa in Isa::available() {
            let mut out = vec![7.0; bags.len() * dim];
            gather_bag(isa, Rows::new(&data, 9, dim, stride), &offsets, &ids, pooling,
                MatMut::new(&mut out, bags.len(), dim));
            let mut d = vec![1.0; bags.len() * dim];
            scale_bag_gradient(isa, &offsets, pooling, MatMut::new(&mut d, bags.len(), dim));
            for (i, bag) in bags.iter().enumerate() {
                let share = if mean { 1.0 / bag.len().max(1) as f64 } else { 1.0 };
                for c in 0..dim {
                    let sum: f64 = bag.iter().map(|&id| f64::from(data[id as usize * stride + c])).sum();
                    prop_assert!(close(out[i * dim + c], sum * share, 1e-5), "{isa}: {}", out[i * dim + c]);
                    prop_assert!(close(d[i * dim + c], share, 1e-7));
                }
            }
        }
    }
}

#[test]
#[should_panic]
fn offsets_beyond_the_ids_are_refused() {
    let table = Rows::new(&[0.0; 4], 2, 2, 2);
    gather_bag(Isa::best(), table, &[0, 3], &[0, 1], Pooling::Sum, MatMut::new(&mut [0.0; 2], 1, 2));
}
