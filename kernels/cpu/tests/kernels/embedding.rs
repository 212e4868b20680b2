use manygate_kernels::embedding::*;

#[test]
fn ids_are_checked_up_to_the_last() {
    assert_eq!(check_ids(&[], 0), Ok(()));
    assert_eq!(check_ids(&[0, 4, 2], 5), Ok(()));
    assert_eq!(check_ids(&[0, 4, 5, 9], 5), Err(2));
    assert_eq!(check_ids(&[0], 0), Err(0));
}

#[test]
#[should_panic(expected = "id 2 of a table with 2 rows")]
fn a_row_beyond_the_table_is_refused() {
    Rows::new(&[0.0; 9], 2, 3, 4).row(2);
}

#[test]
#[should_panic(expected = "need 8")]
fn a_short_table_is_refused() {
    Rows::new(&[0.0; 7], 2, 3, 4);
}
