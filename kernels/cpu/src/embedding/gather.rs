//! Look-ups of single ids.

use super::{AHEAD, Rows};
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::MatMut;

dispatch! {
    /// Copies the weights of row `ids[i]` to row `i` of `out` `[ids.len(), dim]`.
    ///
    /// # Panics
    /// When `out` has another shape or an id is not below the number of rows (see [`check_ids`](super::check_ids)).
    pub fn gather(table: Rows<'_>, ids: &[u32], out: MatMut<'_>) = gather_body;
}

#[inline(always)]
fn gather_body<S: Simd>(s: S, table: Rows<'_>, ids: &[u32], mut out: MatMut<'_>) {
    assert_eq!((out.rows(), out.cols()), (ids.len(), table.dim()), "gather: the output has another shape");
    for &id in ids.iter().take(AHEAD) {
        table.prefetch(id);
    }
    for (i, &id) in ids.iter().enumerate() {
        if let Some(&coming) = ids.get(i + AHEAD) {
            table.prefetch(coming);
        }
        let (from, to) = (table.row(id), out.row_mut(i));
        for span in spans(s, from.len()) {
            store_span(s, to, span, load_span(s, from, span));
        }
    }
}
