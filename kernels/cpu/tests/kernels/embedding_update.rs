use crate::embedding_reference;
use crate::testing::{close, values};
use manygate_kernels::embedding::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::Mat;
use proptest::prelude::*;

fn optimizers() -> [RowOptimizer; 5] {
    let correction = RowOptimizer::adam_correction(0.9, 0.999, 3);
    [
        RowOptimizer::LazyAdam { rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, correction, l2: 0.01 },
        RowOptimizer::Adagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
        RowOptimizer::RowwiseAdagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
        RowOptimizer::Ftrl { alpha: 0.1, beta: 1.0, l1: 0.3, l2: 0.02 },
        RowOptimizer::Sgd { rate: 0.1, l2: 0.03 },
    ]
}

proptest! {
    #[test]
    fn rows_move_as_in_f64_and_alike_when_cut(
        dim in 0usize..40, pad in 0usize..3, rows in 1usize..20, skip: bool, seed: u64,
        ids in prop::collection::vec(0u32..7, 0..120), cut in 0usize..120,
    ) {
        let data: Vec<Vec<f32>> = (0..2).map(|i| values(seed ^ i, rows * dim, 1.0)).collect();
        let sources: Vec<Mat<'_>> = data.iter().map(|d| Mat::new(d, rows, dim)).collect();
        let sources = GradientSources::new(&sources, 6);
        let keys = embedding_reference::keys(&ids, 2, rows, 6);
        let cut = run_start(&keys, cut.min(keys.len()));
        for optimizer in optimizers() {
            let stride = dim + optimizer.state_width(dim) + pad;
            let mut before = values(seed ^ 9, 7 * stride, 1.0);
            // Second moments are positive, and not so small that the quotient magnifies the rounding of a sum.
            for row in before.chunks_mut(stride.max(1)) {
                row.iter_mut().skip(dim).for_each(|x| *x = 0.1 + x.abs());
            }
            let expected = embedding_reference::updated(&keys, sources, &before, dim, stride, &optimizer, skip);
            for isa in Isa::available() {
                let mut table = before.clone();
                update_rows(isa, &keys, sources, TableMut::new(&mut table, 7, dim, stride), &optimizer, skip);
                for (i, &x) in table.iter().enumerate() {
                    prop_assert!(close(x, expected[i], 1e-5), "{isa} {optimizer:?} [{i}]: {x}, {}", expected[i]);
                }
                let mut in_parts = before.clone();
                for keys in [&keys[cut..], &keys[..cut]] {
                    update_rows(isa, keys, sources, TableMut::new(&mut in_parts, 7, dim, stride), &optimizer, skip);
                }
                prop_assert_eq!(&in_parts, &table);
            }
        }
    }
}

#[test]
fn two_threads_with_disjoint_ids_give_the_same_bits() {
    let (dim, stride, rows, lookups) = (16, 48, 500, if cfg!(miri) { 60 } else { 4000 });
    let data = values(3, lookups * dim, 1.0);
    let sources = [Mat::new(&data, lookups, dim)];
    let sources = GradientSources::new(&sources, 12);
    let ids: Vec<u32> = (0..lookups as u32).map(|i| i.wrapping_mul(2_654_435_761) % rows as u32).collect();
    let keys = embedding_reference::keys(&ids, 1, lookups, 12);
    let optimizer = optimizers()[0];
    let mut one = vec![0.25; rows * stride];
    let mut two = one.clone();
    update_rows(Isa::best(), &keys, sources, TableMut::new(&mut one, rows, dim, stride), &optimizer, true);
    let (low, high) = keys.split_at(run_start(&keys, lookups / 2));
    let ptr = two.as_mut_ptr();
    // SAFETY: `two` has `rows * stride` values and outlives the threads; the ids of `low` and `high` are disjoint.
    let tables = unsafe { [low, high].map(|keys| (keys, TableMut::from_raw(ptr, rows, dim, stride))) };
    std::thread::scope(|scope| {
        for (keys, table) in tables {
            scope.spawn(move || update_rows(Isa::best(), keys, sources, table, &optimizer, true));
        }
    });
    assert_eq!(one, two);
}

#[test]
#[should_panic(expected = "weights and state")]
fn a_stride_without_room_for_the_state_is_refused() {
    let data = [0.0; 4];
    let sources = [Mat::new(&data, 2, 2)];
    let table = &mut [0.0; 8];
    let table = TableMut::new(table, 2, 2, 4);
    update_rows(Isa::best(), &[0], GradientSources::new(&sources, 4), table, &optimizers()[0], false);
}
