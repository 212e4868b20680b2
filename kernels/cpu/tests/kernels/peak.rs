use manygate_kernels::Isa;
use manygate_kernels::peak::*;
use std::time::Duration;

#[test]
fn every_measure_is_a_rate() {
    let budget = Duration::from_millis(2);
    for isa in Isa::available() {
        assert!(fma_gflops(isa, budget) > 0.0);
        assert!(random_rows(isa, &[1.0; 100 * ROW], budget) > 0.0);
    }
    assert!(read_gbs(Isa::best(), &[1.0; 1000], budget).is_finite());
    assert!(copy_gbs(&[1.0; 1000], &mut [0.0; 1000], budget).is_finite());
}

#[test]
fn a_read_reads_everything() {
    for isa in Isa::available() {
        for len in [0, 1, 191, 192, 193, 1000] {
            assert_eq!(sum_of(isa, &vec![1.0; len]), len as f32, "{isa}, {len}");
        }
    }
}

#[test]
fn chains_of_multiply_adds_tend_to_their_fixed_point() {
    // x -> 0.999 x + 0.001 stays at 1.
    for isa in Isa::available() {
        let sum = fma_chains(isa, 100);
        let values = isa.lanes() * 12;
        assert!((sum - values as f32).abs() < 1e-2, "{isa}: {sum} for {values} chains");
    }
}
