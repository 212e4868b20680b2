//! The workload that training speed is measured on: what a medium ranking model meets, drawn from a fixed seed.
//!
//! 26 categorical fields with vocabularies log-spaced from 10 to 1,000,000 (2.71 M rows), ids by Zipf's law with
//! exponent 1.05, 13 standard normal numbers, 5 scenarios, 3 tasks of which the second needs a positive first; for models
//! that read them, 5 to 50 behaviours a row out of the largest table, and the scenario of each.

use manygate_core::{Bag, Batch, Stream};
use manygate_kernels::embedding::Pooling;
use manygate_models::{BagField, Field, Inputs, Table, Task};

/// Categorical fields.
pub const FIELDS: usize = 26;
/// Numbers a row.
pub const DENSE: usize = 13;
/// Share of the rows of each scenario.
const SCENARIOS: [f64; 5] = [0.4, 0.25, 0.2, 0.1, 0.05];
/// Rates of the tasks; the second is then thinned by the first.
const TASKS: [(&str, f64); 3] = [("click", 0.3), ("buy", 0.1), ("like", 0.05)];
/// Behaviours a row, where there are any.
const SHORTEST_HISTORY: usize = 5;
const LONGEST_HISTORY: usize = 50;
const ZIPF_EXPONENT: f64 = 1.05;
const SEED: u64 = 2024;
/// Rows of all batches together, as long as there are neither too few batches nor too many.
const TOTAL_ROWS: usize = 65_536;

/// What a step reads.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Fields, numbers and tasks.
    pub inputs: Inputs,
    /// Different batches, to be used in turn: one batch again and again would find its rows in the caches.
    pub batches: Vec<Batch>,
}

impl Workload {
    /// Batches of `rows` rows each, 4 to 48 of them, with all tasks and without histories.
    pub fn new(rows: usize) -> Workload {
        Workload::of(rows, TASKS.len(), 0)
    }

    /// The same with the first `tasks` tasks and so many lists: behaviours, and the scenarios of these.
    pub fn of(rows: usize, tasks: usize, lists: usize) -> Workload {
        let batches = (TOTAL_ROWS / rows.max(1)).clamp(4, 48);
        let all = draw(batches * rows, tasks, lists);
        let numbers: Vec<u32> = (0..all.rows as u32).collect();
        let of = |rows: &[u32]| {
            let mut batch = Batch::empty_like(&all);
            batch.gather(&all, rows);
            batch
        };
        Workload { inputs: inputs(tasks, lists), batches: numbers.chunks(rows.max(1)).map(of).collect() }
    }

    /// Rows of tables that a batch looks up, each counted once: the median over batches.
    pub fn distinct_rows(&self) -> usize {
        let distinct = |ids: &Vec<u32>| {
            let mut ids = ids.clone();
            ids.sort_unstable();
            ids.dedup();
            ids.len()
        };
        let mut counts: Vec<usize> = self.batches.iter().map(|b| b.ids.iter().map(distinct).sum()).collect();
        counts.sort_unstable();
        counts[counts.len() / 2]
    }
}

/// Values of field `field`.
fn vocabulary(field: usize) -> usize {
    (10.0 * 1e5_f64.powf(field as f64 / (FIELDS - 1) as f64)).round() as usize
}

/// Fields, numbers, the first `tasks` tasks and `lists` lists.
pub(crate) fn inputs(tasks: usize, lists: usize) -> Inputs {
    let name = |field: usize| format!("field{field}");
    let task = |(name, _): (&str, f64)| Task::binary(name);
    let list = |(name, table): (&str, usize)| BagField {
        name: name.into(),
        table,
        pooling: Pooling::Mean,
        longest: Some(LONGEST_HISTORY),
    };
    let field = |f: usize| Table { name: name(f), rows: vocabulary(f) + 1, dim: None };
    let scenarios = Table { name: "scenario".into(), rows: SCENARIOS.len() + 1, dim: None };
    Inputs {
        // One row more: row 0 is the unknown row, which nothing looks up here.
        tables: (0..FIELDS).map(field).chain((lists > 1).then_some(scenarios)).collect(),
        fields: (0..FIELDS).map(|f| Field { name: name(f), table: f }).collect(),
        bags: [("history", FIELDS - 1), ("history_scenarios", FIELDS)]
            .into_iter()
            .take(lists)
            .map(list)
            .collect(),
        dense: DENSE,
        dense_names: Vec::new(),
        scenarios: SCENARIOS.len(),
        tasks: TASKS.into_iter().take(tasks).map(task).collect(),
    }
}

fn draw(rows: usize, tasks: usize, lists: usize) -> Batch {
    // Streams are numbered as the columns: fields, then the others.
    let stream = |column: usize| Stream::new(SEED, 0, column as u64);
    let ids = |field: usize| {
        let (zipf, stream) = (Zipf::new(vocabulary(field)), stream(field));
        (0..rows as u64).map(|row| zipf.id(uniform(&stream, row))).collect()
    };
    let (numbers, scenarios) = (stream(FIELDS), stream(FIELDS + 1));
    let shares = cumulative(SCENARIOS.into_iter());
    let mut labels: Vec<Vec<f32>> = Vec::with_capacity(TASKS.len());
    for (t, (_, rate)) in TASKS.into_iter().enumerate() {
        let stream = stream(FIELDS + 2 + t);
        labels.push((0..rows as u64).map(|row| f32::from(uniform(&stream, row) < rate)).collect());
    }
    let (first, others) = labels.split_at_mut(1);
    others[0].iter_mut().zip(&first[0]).for_each(|(second, first)| *second *= first);
    labels.truncate(tasks);
    Batch {
        rows,
        ids: (0..FIELDS).map(ids).collect(),
        bags: if lists == 0 { Vec::new() } else { histories(rows).into_iter().take(lists).collect() },
        dense: (0..(rows * DENSE) as u64).map(|i| numbers.normal(i, 0)).collect(),
        dense_width: DENSE,
        scenario: (0..rows as u64).map(|row| position(&shares, uniform(&scenarios, row)) as u32).collect(),
        labels,
    }
}

/// 5 to 50 behaviours a row, by the law of the largest table, and the scenario of each.
fn histories(rows: usize) -> [Bag; 2] {
    let stream = |column: usize| Stream::new(SEED, 0, (FIELDS + 2 + TASKS.len() + column) as u64);
    let (zipf, shares) = (Zipf::new(vocabulary(FIELDS - 1)), cumulative(SCENARIOS.into_iter()));
    let (lengths, ids, scenarios) = (stream(0), stream(1), stream(2));
    let mut bags = [(); 2].map(|()| Bag { offsets: vec![0], ids: Vec::new() });
    for row in 0..rows as u64 {
        let spread = (LONGEST_HISTORY - SHORTEST_HISTORY + 1) as u64;
        let first = row * LONGEST_HISTORY as u64;
        for i in first..first + SHORTEST_HISTORY as u64 + lengths.below(row, 0, spread) {
            bags[0].ids.push(zipf.id(uniform(&ids, i)));
            bags[1].ids.push(1 + position(&shares, uniform(&scenarios, i)) as u32);
        }
        bags.iter_mut().for_each(|bag| bag.offsets.push(bag.ids.len() as u32));
    }
    bags
}

/// A number in [0, 1) with 53 random bits: a million ranks need more than the 24 of an f32.
fn uniform(stream: &Stream, row: u64) -> f64 {
    let [a, b, ..] = stream.block(row, 0);
    let bits = u64::from(a) << 21 | u64::from(b) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Running sums of `shares`, the last of which is 1.
fn cumulative(shares: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sums: Vec<f64> = shares
        .scan(0.0, |sum, share| {
            *sum += share;
            Some(*sum)
        })
        .collect();
    let all = sums.last().copied().unwrap_or(1.0);
    sums.iter_mut().for_each(|sum| *sum /= all);
    sums
}

/// The first position whose running sum exceeds `at`.
fn position(sums: &[f64], at: f64) -> usize {
    sums.partition_point(|&sum| sum <= at).min(sums.len() - 1)
}

/// Zipf's law over the values of a vocabulary, scattered by an affine permutation: encoders number values as they
/// meet them, so popular rows are not neighbours.
struct Zipf {
    sums: Vec<f64>,
    factor: u64,
}

impl Zipf {
    fn new(values: usize) -> Zipf {
        let sums = cumulative((1..=values).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)));
        let values = values as u64;
        // About the golden ratio, and without a common divisor, so that no two ranks meet.
        let mut factor = ((values as f64 * 0.618_033_988_7) as u64).max(1) | 1;
        while common_divisor(factor, values) != 1 {
            factor += 2;
        }
        Zipf { sums, factor }
    }

    /// A row of the table, from 1.
    fn id(&self, at: f64) -> u32 {
        let rank = position(&self.sums, at) as u64;
        ((rank * self.factor + 7) % self.sums.len() as u64) as u32 + 1
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_yardstick() {
        let rows: usize = (0..FIELDS).map(vocabulary).sum();
        assert_eq!((vocabulary(0), vocabulary(FIELDS - 1)), (10, 1_000_000));
        assert!((2_700_000..2_720_000).contains(&rows), "{rows}");
    }

    #[test]
    fn ids_are_a_scattered_zipf_law() {
        let zipf = Zipf::new(1000);
        let mut rows: Vec<u32> = (0..1000).map(|rank| zipf.id((zipf.sums[rank] - 1e-9).max(0.0))).collect();
        assert!(rows[0].abs_diff(rows[1]) > 1, "popular rows are neighbours");
        rows.sort_unstable();
        assert!(rows.iter().copied().eq(1..=1000), "two ranks share a row");
        let expected = 1.0 / (1..=1000).map(|rank| f64::from(rank).powf(-ZIPF_EXPONENT)).sum::<f64>();
        assert!((zipf.sums[0] - expected).abs() < 1e-12);
    }

    #[test]
    fn batches_differ_fit_their_inputs_and_repeat() {
        let workload = Workload::new(2048);
        assert_eq!(workload.batches.len(), 32);
        assert_ne!(workload.batches[0], workload.batches[1]);
        for batch in &workload.batches {
            batch.validate().unwrap();
            assert_eq!(batch.rows, 2048);
            for (ids, table) in batch.ids.iter().zip(&workload.inputs.tables) {
                assert!(ids.iter().all(|&id| id > 0 && (id as usize) < table.rows));
            }
            assert!(batch.labels[1].iter().zip(&batch.labels[0]).all(|(buy, click)| buy <= click));
        }
        assert_eq!(workload.batches, Workload::new(2048).batches);
        let rate = |t: usize| workload.batches.iter().flat_map(|b| &b.labels[t]).sum::<f32>() / 65_536.0;
        assert!(
            (rate(0) - 0.3).abs() < 0.01 && (rate(1) - 0.03).abs() < 0.005 && (rate(2) - 0.05).abs() < 0.005
        );
        let distinct = workload.distinct_rows();
        assert!((5_000..30_000).contains(&distinct), "{distinct}");
    }
}
