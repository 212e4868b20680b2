//! GAUC: AUC within groups (users), which ignores how well groups are told apart.

use super::{Ranked, auc};

/// AUC within groups, and over what it was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauc {
    /// Mean of the groups' AUC weighted by their rows; `None` when no group has both classes.
    pub value: Option<f64>,
    /// Groups with both classes. The others count nowhere, in the denominator neither.
    pub groups: usize,
    /// Rows of those groups.
    pub rows: usize,
}

/// AUC within groups, weighted by impressions; `groups` is the group of every row of the data, `[row]`.
///
/// # Panics
/// When `groups` is shorter than the data that `ranked` was made from.
pub fn gauc(ranked: &Ranked, groups: &[u32]) -> Gauc {
    // A sort by (group, place in the ranking) puts each group's rows together, in rising order of prediction.
    let rows = ranked.rows();
    let mut keys: Vec<u64> = rows
        .iter()
        .enumerate()
        .map(|(place, row)| u64::from(groups[row.row as usize]) << 32 | place as u64)
        .collect();
    keys.sort_unstable();
    let mut weighted = Vec::new();
    let mut found = Gauc::default();
    let mut members = Vec::new();
    for group in keys.chunk_by(|a, b| a >> 32 == b >> 32) {
        members.clear();
        members.extend(group.iter().map(|&key| rows[key as u32 as usize]));
        if let Some(auc) = auc::of_rising(&members) {
            weighted.push(auc * members.len() as f64);
            found.groups += 1;
            found.rows += members.len();
        }
    }
    // In an order of their own: how groups are numbered (by which files were read before) must not move a bit.
    weighted.sort_unstable_by(f64::total_cmp);
    found.value = (found.rows > 0).then(|| weighted.iter().sum::<f64>() / found.rows as f64);
    found
}
