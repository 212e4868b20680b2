//! Look-ups in random rows, and the sparse update: sort, sum, row optimiser. Bytes are those that the look-ups touch;
//! whole rows at random cannot reach the bandwidth of a copy once the table leaves the caches.

use criterion::{Criterion, criterion_main};
use manygate_benches::{Aligned, Machine, Work, case, quick, values};
use manygate_kernels::embedding::{
    GradientSources, Pooling, RowOptimizer, Rows, TableMut, coalesce, gather, gather_bag, sort_lookups,
    update_rows,
};
use manygate_kernels::{Isa, Mat, MatMut};

/// A batch of 4096 rows with 26 fields.
const LOOKUPS: usize = 26 * 4096;
const DIM: usize = 16;
const ROW_BITS: u32 = 17;
const ROWS: [usize; 2] = [100_000, 2_700_000];
/// Ids in a bag.
const BAG: usize = 8;
/// Batches used in turn: the same one again and again would find its rows of a large table in the caches.
const BATCHES: usize = 8;

fn bytes(values: usize) -> Work {
    Work { flops: 0.0, bytes: (values * size_of::<f32>()) as f64 }
}

/// The ids of each batch, uniform over the table.
fn batches(rows: usize) -> Vec<Vec<u32>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (((state >> 32) * rows as u64) >> 32) as u32
    };
    (0..BATCHES).map(|_| (0..LOOKUPS).map(|_| next()).collect()).collect()
}

fn keys(ids: &[u32]) -> Vec<u64> {
    ids.iter().zip(0..).map(|(&id, position)| (u64::from(id) << 32) | position).collect()
}

fn lookups(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("look-up {isa}"));
    let mut out = Aligned::zeros(LOOKUPS * DIM);
    for rows in ROWS {
        // With the state of Adam beside the weights, as in training.
        let data = Aligned::zeros(rows * 3 * DIM);
        let table = Rows::new(data.as_ref(), rows, DIM, 3 * DIM);
        let batches = batches(rows);
        let mut batch = batches.iter().cycle();
        case(&mut group, machine, &format!("gather, {rows} rows"), bytes(LOOKUPS * (2 * DIM + 1)), || {
            let ids = batch.next().expect("a cycle has no end");
            gather(isa, table, ids, MatMut::new(out.as_mut(), LOOKUPS, DIM));
        });
        let bags = LOOKUPS / BAG;
        let offsets: Vec<u32> = (0..=bags).map(|bag| (bag * BAG) as u32).collect();
        let work = bytes(LOOKUPS * (DIM + 1) + bags * DIM);
        case(&mut group, machine, &format!("bags of {BAG}, {rows} rows"), work, || {
            let ids = batch.next().expect("a cycle has no end");
            let out = MatMut::new(out.as_mut(), bags, DIM);
            gather_bag(isa, table, &offsets, ids, Pooling::Mean, out);
        });
    }
}

fn updates(criterion: &mut Criterion, isa: Isa, machine: &Machine) {
    let mut group = criterion.benchmark_group(format!("update {isa}"));
    let gradients = values(LOOKUPS * DIM);
    let sources = [Mat::new(gradients.as_ref(), LOOKUPS, DIM)];
    let sources = GradientSources::new(&sources, ROW_BITS);
    let correction = RowOptimizer::adam_correction(0.9, 0.999, 10);
    let adam =
        RowOptimizer::LazyAdam { rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, correction, l2: 0.0 };
    let adagrad = RowOptimizer::Adagrad { rate: 0.01, epsilon: 1e-8, l2: 0.0 };
    let by_row = RowOptimizer::RowwiseAdagrad { rate: 0.01, epsilon: 1e-8, l2: 0.0 };
    let ftrl = RowOptimizer::Ftrl { alpha: 0.1, beta: 1.0, l1: 0.0, l2: 0.0 };
    let sgd = RowOptimizer::Sgd { rate: 0.01, l2: 0.0 };
    for rows in ROWS {
        let mut batches: Vec<Vec<u64>> = batches(rows).iter().map(|ids| keys(ids)).collect();
        let (mut sorted, mut spare) = (vec![0; LOOKUPS], vec![0; LOOKUPS]);
        let work = bytes(LOOKUPS * 2 * 2);
        case(&mut group, machine, &format!("copy and sort, {rows} rows"), work, || {
            sorted.copy_from_slice(&batches[0]);
            sort_lookups(&mut sorted, &mut spare, rows as u32 - 1);
        });
        for keys in &mut batches {
            sort_lookups(keys, &mut spare, rows as u32 - 1);
        }
        let mut batch = batches.iter().cycle();
        let distinct = batches[0].chunk_by(|a, b| a >> 32 == b >> 32).count();
        let mut ids_out = vec![0; LOOKUPS];
        let mut sums = Aligned::zeros(LOOKUPS * DIM);
        let work = bytes(LOOKUPS * (DIM + 2) + distinct * (DIM + 1));
        case(&mut group, machine, &format!("coalesce, {rows} rows"), work, || {
            let sorted = batch.next().expect("a cycle has no end");
            let sums = MatMut::new(sums.as_mut(), LOOKUPS, DIM);
            coalesce(isa, sorted, sources, DIM, &mut ids_out, sums);
        });
        let optimizers = [
            ("lazy Adam", adam),
            ("Adagrad", adagrad),
            ("row-wise Adagrad", by_row),
            ("FTRL", ftrl),
            ("sgd", sgd),
        ];
        for (name, optimizer) in optimizers {
            let width = DIM + optimizer.state_width(DIM);
            let mut table = Aligned::zeros(rows * width);
            let work = bytes(LOOKUPS * (DIM + 2) + distinct * 2 * width);
            case(&mut group, machine, &format!("{name}, {rows} rows"), work, || {
                let sorted = batch.next().expect("a cycle has no end");
                let table = TableMut::new(table.as_mut(), rows, DIM, width);
                update_rows(isa, sorted, sources, table, &optimizer, true);
            });
        }
    }
}

fn benches() {
    let mut criterion = quick();
    let isa = Isa::best();
    let machine = Machine::measure(isa);
    lookups(&mut criterion, isa, &machine);
    updates(&mut criterion, isa, &machine);
    criterion.final_summary();
}

criterion_main!(benches);
