use crate::testing::values;
use manygate_kernels::embedding::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::MatMut;
use proptest::prelude::*;

proptest! {
    #[test]
    fn rows_come_out_as_they_are(
        dim in 0usize..40, state in 0usize..3, pad in 0usize..3, ids in prop::collection::vec(0u32..9, 0..50),
        seed: u64,
    ) {
        let stride = dim + state;
        let data = values(seed, 9 * stride, 1.0);
        for isa in Isa::available() {
            let mut out = vec![7.0; ids.len() * (dim + pad)];
            gather(isa, Rows::new(&data, 9, dim, stride), &ids,
                MatMut::strided(&mut out, ids.len(), dim, dim + pad));
            for (i, &id) in ids.iter().enumerate() {
                let row = &out[i * (dim + pad)..][..dim + pad];
                prop_assert_eq!(&row[..dim], &data[id as usize * stride..][..dim]);
                prop_assert!(row[dim..].iter().all(|&x| x == 7.0), "padding was written");
            }
        }
    }
}

#[test]
#[should_panic(expected = "id 3 of a table with 3 rows")]
fn an_id_beyond_the_table_is_refused() {
    gather(Isa::best(), Rows::new(&[0.0; 6], 3, 2, 2), &[0, 3], MatMut::new(&mut [0.0; 4], 2, 2));
}
