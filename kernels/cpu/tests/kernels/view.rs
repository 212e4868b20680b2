use manygate_kernels::view::*;

#[test]
fn columns_and_rows_address_the_same_elements() {
    let data: Vec<f32> = (0..20).map(|v| v as f32).collect();
    let m = Mat::strided(&data, 3, 5, 7);
    assert_eq!(m.row(2), &[14.0, 15.0, 16.0, 17.0, 18.0]);
    assert_eq!(m.columns(2, 2).row(1), &[9.0, 10.0]);
    assert_eq!(m.row_range(1, 2).row(1), m.row(2));
    assert_eq!(m.row_range(3, 0).rows(), 0);
}

#[test]
#[should_panic(expected = "needs 19 values")]
fn a_short_slice_is_refused() {
    Mat::strided(&[0.0; 18], 3, 5, 7);
}
