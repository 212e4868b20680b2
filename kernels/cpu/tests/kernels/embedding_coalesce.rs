use crate::embedding_reference;
use crate::testing::{close, values};
use manygate_kernels::embedding::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

proptest! {
    #[test]
    fn sums_agree_with_f64_and_their_bits_on_every_instruction_set(
        dim in 0usize..40, rows in 1usize..20, ids in prop::collection::vec(0u32..5, 0..150), seed: u64,
    ) {
        let data: Vec<Vec<f32>> = (0..3).map(|i| values(seed ^ i, rows * dim, 1.0)).collect();
        let sources: Vec<Mat<'_>> = data.iter().map(|d| Mat::new(d, rows, dim)).collect();
        let sources = GradientSources::new(&sources, 5);
        let keys = embedding_reference::keys(&ids, 3, rows, 5);
        let expected = embedding_reference::summed(&keys, sources, dim);
        let mut scalar_bits = None;
        for isa in Isa::available() {
            let mut ids_out = vec![0; expected.len()];
            let mut grads = vec![7.0; expected.len() * dim];
            let count = coalesce(isa, &keys, sources, dim, &mut ids_out,
                MatMut::new(&mut grads, expected.len(), dim));
            prop_assert_eq!(count, expected.len());
            for (i, (id, sum)) in expected.iter().enumerate() {
                prop_assert_eq!(ids_out[i], *id);
                for c in 0..dim {
                    prop_assert!(close(grads[i * dim + c], sum[c], 1e-5), "{isa}");
                }
            }
            prop_assert_eq!(scalar_bits.get_or_insert(grads.clone()), &grads);
        }
    }
}

#[test]
#[should_panic]
fn a_position_without_a_row_is_refused() {
    let data = [0.0; 4];
    let sources = [Mat::new(&data, 2, 2)];
    coalesce(
        Isa::best(),
        &[2],
        GradientSources::new(&sources, 4),
        2,
        &mut [0],
        MatMut::new(&mut [0.0; 2], 1, 2),
    );
}
