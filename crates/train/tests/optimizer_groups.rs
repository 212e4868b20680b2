//! Groups of tensors with methods, rates and cadences of their own move bit for bit as loops written here do.

use manygate_core::{Batch, Executor, Pool, Serial, Stream};
use manygate_embedding::SparseGradients;
use manygate_graph::{Draws, Input, Mode, PlanOptions, Workspace};
use manygate_models::inputs::{Field, Inputs, Table, Task};
use manygate_train::Learner;

const ROWS: usize = 100;
const IDS: u64 = 30;
const STEPS: u64 = 5;
const TABLES: [&str; 3] = ["user", "item", "tag"];

const GROUPS: &str = r#"
    [dense]
    rate = 0.02
    [tables]
    rate = 0.03
    [[group]]
    names = ["towers.click.*", "embedding.user.weight"]
    method = "sgd"
    rate = 0.25
    every = 2
    [[group]]
    names = ["experts.*", "embedding.tag.weight"]
    method = "adam"
    rate = 0.02
    beta1 = 0.5
    every = 2
    [[group]]
    names = ["gates.*"]
    method = "sgd"
    rate = 0.125
"#;

fn learner(groups: &str, exec: &dyn Executor) -> manygate_core::Result<Learner> {
    let task = |name: &str| Task::binary(name);
    let inputs = Inputs {
        tables: TABLES.map(|name| Table { name: name.into(), rows: IDS as usize, dim: None }).to_vec(),
        fields: TABLES.iter().zip(0..).map(|(&name, table)| Field { name: name.into(), table }).collect(),
        dense: 2,
        tasks: vec![task("click"), task("buy")],
        ..Inputs::default()
    };
    let model = "name = \"mmoe\"\nembedding_dim = 5\nexperts = 2\nexpert_units = [9, 7]\ntower_units = [5]";
    let (_, architecture) = manygate_models::from_table(&model.parse().unwrap())?;
    let graph = manygate_models::build(architecture.as_ref(), &inputs, Mode::Training)?;
    let options = PlanOptions { lane_rows: 16, ..PlanOptions::default() };
    Learner::new(graph, options, &groups.parse().unwrap(), 3, exec, ROWS)
}

fn batch(step: u64) -> Batch {
    let stream = Stream::new(9, step, 0);
    let below = |r: usize, column: u64, below: u64| stream.below(r as u64, column, below) as u32;
    let column = |c: u64, limit: u64| (0..ROWS).map(|r| below(r, c, limit)).collect::<Vec<u32>>();
    Batch {
        rows: ROWS,
        ids: [10, 11, 12].map(|c| column(c, IDS)).to_vec(),
        dense: (0..ROWS * 2).map(|i| stream.normal(i as u64, 0)).collect(),
        dense_width: 2,
        labels: [20, 21].map(|c| column(c, 2).into_iter().map(|y| y as f32).collect()).to_vec(),
        ..Batch::default()
    }
}

/// Sum over lanes of the dense gradient, and ids and gradient rows of each table.
type Gradients = (Vec<f32>, Vec<(Vec<u32>, Vec<f32>)>);

fn gradients(learner: &Learner, batch: &Batch) -> Gradients {
    let plan = &learner.plan;
    let mut ws = Workspace::new(plan, 1, ROWS);
    plan.pack(&Serial, &mut ws, &learner.params);
    let Learner { params, state, tables, .. } = learner;
    let draws = Draws::default();
    plan.run(&Serial, &mut ws, &Input { params, state, tables, batch, seeds: &[1.0, 1.0], draws }).unwrap();
    let lanes = plan.gradients(&ws);
    assert!(lanes.rows() > 1, "several lanes");
    let sum = |i: usize| (0..lanes.rows()).fold(0.0, |sum, lane| sum + lanes.row(lane)[i]);
    let mut sparse = SparseGradients::new(plan, ROWS);
    sparse.sort(&Serial, batch);
    let rows = (0..TABLES.len()).map(|t| sparse.coalesced(plan, &ws, t)).collect();
    ((0..lanes.cols()).map(sum).collect(), rows)
}

/// Adam of one value, with `step` its own updates.
struct Adam {
    rate: f32,
    beta1: f32,
    step: f64,
}

const BETA2: f32 = 0.999;

impl Adam {
    fn moments(&self, g: f32, m: &mut f32, v: &mut f32) {
        *m = self.beta1.mul_add(*m, (1.0 - self.beta1) * g);
        *v = BETA2.mul_add(*v, (1.0 - BETA2) * (g * g));
    }

    fn dense(&self, w: &mut f32, g: f32, m: &mut f32, v: &mut f32, beta1: f64) {
        self.moments(g, m, v);
        let correction = |beta: f64| (1.0 - beta.powf(self.step)) as f32;
        *w -= self.rate / correction(beta1) * (*m / (v.sqrt() / correction(0.999).sqrt() + 1e-8));
    }

    /// Weights and moments of a row, one after the other.
    fn row(&self, row: &mut [f32], gradient: &[f32]) {
        let power = |beta: f32| f64::from(beta).powf(self.step);
        let correction = ((1.0 - power(BETA2)).sqrt() / (1.0 - power(self.beta1))) as f32;
        let (w, state) = row.split_at_mut(gradient.len());
        let (m, v) = state.split_at_mut(gradient.len());
        for (i, &g) in gradient.iter().enumerate() {
            self.moments(g, &mut m[i], &mut v[i]);
            w[i] -= self.rate * correction * m[i] / (v[i].sqrt() + 1e-8);
        }
    }
}

fn sgd(w: &mut [f32], rate: f32, g: &[f32]) {
    w.iter_mut().zip(g).for_each(|(w, g)| *w -= rate * g);
}

/// What the dense tensor `name` must be after step `step`.
fn move_dense(name: &str, step: u64, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let mut adam = |rate: f32, beta1: f64, updates: u64| {
        let adam = Adam { rate, beta1: beta1 as f32, step: updates as f64 };
        for i in 0..w.len() {
            adam.dense(&mut w[i], g[i], &mut m[i], &mut v[i], beta1);
        }
    };
    match name.split('.').next().unwrap() {
        "towers" if name.starts_with("towers.buy") => adam(0.02, 0.9, step),
        "experts" if step.is_multiple_of(2) => adam(0.02, 0.5, step / 2),
        "towers" if step.is_multiple_of(2) => sgd(w, 0.25, g),
        "gates" => sgd(w, 0.125, g),
        _ => assert!(step % 2 == 1, "{name} is in a group"),
    }
}

/// What the table `name` must be after step `step`: rows of `stride` values.
fn move_table(name: &str, step: u64, values: &mut [f32], stride: usize, (ids, rows): &(Vec<u32>, Vec<f32>)) {
    let dim = rows.len() / ids.len();
    for (&id, g) in ids.iter().zip(rows.chunks_exact(dim)).filter(|(id, _)| **id > 0) {
        let row = &mut values[id as usize * stride..][..stride];
        match name {
            "user" if step % 2 == 1 => {}
            // The kernel of rows rounds the product and the difference as one.
            "user" => row.iter_mut().zip(g).for_each(|(w, &g)| *w = (-0.25f32).mul_add(g, *w)),
            "tag" if step % 2 == 1 => {}
            "tag" => Adam { rate: 0.02, beta1: 0.5, step: (step / 2) as f64 }.row(row, g),
            _ => Adam { rate: 0.03, beta1: 0.9, step: step as f64 }.row(row, g),
        }
    }
}

#[test]
fn each_group_moves_as_by_hand() {
    let mut learner = learner(GROUPS, &Serial).unwrap();
    assert_eq!([0, 1, 2].map(|t| learner.tables.0[t].state_width()), [0, 10, 10]);
    for step in 1..=STEPS {
        let batch = batch(step);
        let (dense, rows) = gradients(&learner, &batch);
        let [mut w, mut m, mut v] =
            [&learner.params.values, &learner.dense.first, &learner.dense.second].map(|b| b.to_vec());
        for (block, range) in learner.plan.layout().blocks() {
            let parts = [&mut w, &mut m, &mut v].map(|all| &mut all[range.clone()]);
            let [w, m, v] = parts;
            move_dense(&block.name, step, w, &dense[range], m, v);
        }
        let before = learner.tables.clone();
        learner.step(&Serial, &batch).unwrap();
        assert_eq!(learner.params.values[..], w, "step {step}");
        assert_eq!((&learner.dense.first[..], &learner.dense.second[..]), (&m[..], &v[..]), "step {step}");
        for (((name, now), mut before), gradient) in
            TABLES.iter().zip(&learner.tables.0).zip(before.0).zip(&rows)
        {
            let stride = now.stride();
            move_table(name, step, before.values_mut(), stride, gradient);
            assert_eq!(now.values(), before.values(), "{name}, step {step}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let train = |exec: &dyn Executor| {
        let mut learner = learner(GROUPS, exec).unwrap();
        for step in 1..=STEPS {
            learner.step(exec, &batch(step)).unwrap();
        }
        let tables: Vec<Vec<f32>> = learner.tables.0.iter().map(|t| t.values().to_vec()).collect();
        (learner.params.values.to_vec(), learner.dense.second.to_vec(), tables)
    };
    let alone = train(&Serial);
    for threads in [2, 3] {
        assert!(Pool::new(threads).unwrap().enter(|exec| train(exec)) == alone, "{threads} threads");
    }
}

#[test]
fn groups_that_do_not_fit_the_tensors_are_told() {
    let told = |group: &str| learner(&format!("[[group]]\n{group}"), &Serial).unwrap_err().to_string();
    let none = told("names = [\"towers.*\", \"tower.*\"]");
    assert!(none.contains("optimizer.group.0.names: `tower.*` fits no parameter"), "{none}");
    let mixed = told("names = [\"*\"]");
    assert!(
        mixed.contains("optimizer.group.0.method") && mixed.contains("`embedding.user.weight`"),
        "{mixed}"
    );
    let dense = told("names = [\"gates.*\"]\nmethod = \"ftrl\"");
    assert!(dense.contains("optimizer.group.0.method") && dense.contains("`gates.click.weight`"), "{dense}");
    let decay = told("names = [\"embedding.*\"]\nweight_decay = 0.1");
    assert!(decay.contains("optimizer.group.0.weight_decay: adam does not read it"), "{decay}");
}
