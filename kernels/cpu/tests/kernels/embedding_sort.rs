use manygate_kernels::embedding::*;

use proptest::prelude::*;

fn sorted(ids: &[u32], max_id: u32) -> Vec<u64> {
    let mut keys: Vec<u64> =
        ids.iter().enumerate().map(|(i, &id)| (u64::from(id) << 32) | i as u64).collect();
    let mut spare = vec![0; keys.len() + 1];
    sort_lookups(&mut keys, &mut spare, max_id);
    keys
}

proptest! {
    #[test]
    fn sorts_by_id_and_keeps_positions_in_order(
        bits in 0u32..33, shift in 0u32..33, raw in prop::collection::vec(any::<u32>(), 0..300),
    ) {
        // Few or many distinct ids, with digits that are equal throughout.
        let mask = ((1u64 << bits) - 1) as u32;
        let ids: Vec<u32> = raw.iter().map(|id| ((u64::from(id & mask)) << shift) as u32).collect();
        let mut expected: Vec<u64> = (0u64..).zip(&ids).map(|(i, &id)| (u64::from(id) << 32) | i).collect();
        expected.sort_by_key(|key| key >> 32);
        for max_id in [ids.iter().copied().max().unwrap_or(0), u32::MAX] {
            prop_assert_eq!(&sorted(&ids, max_id), &expected);
        }
    }

    #[test]
    fn runs_are_never_cut(ids in prop::collection::vec(0u32..6, 0..60), near in 0usize..60) {
        let keys = sorted(&ids, 6);
        let near = near.min(keys.len());
        let cut = run_start(&keys, near);
        prop_assert!(cut >= near);
        prop_assert!(cut == 0 || cut == keys.len() || keys[cut - 1] >> 32 != keys[cut] >> 32);
        prop_assert!(cut == near || keys[near..cut].iter().all(|key| key >> 32 == keys[near - 1] >> 32));
    }
}
