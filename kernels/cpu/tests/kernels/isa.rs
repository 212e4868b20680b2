use manygate_kernels::isa::*;

#[test]
fn two_sets_are_always_there_and_names_round_trip() {
    let all = Isa::available();
    assert_eq!(all[..2], [Isa::Scalar, Isa::Portable]);
    for isa in all {
        assert_eq!(Isa::named(&isa.to_string()), Ok(isa));
    }
    assert!(Isa::named("mmx").unwrap_err().contains("scalar, portable"));
}
