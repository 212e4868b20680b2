//! Steps on a device against those of a learner on the CPU: losses, weights that a method gives them, and all that moves.

use manygate_core::{Batch, Error, Result, Serial, Stream};
use manygate_cuda_tests::Gpu;
use manygate_graph::{Graph, Mode, Plan, PlanOptions};
use manygate_models::Inputs;
use manygate_tests::small_models::{batch, inputs, of_every_kind};
use manygate_train::balance::Balance;
use manygate_train::device_steps::DeviceSteps;
use manygate_train::{Learner, PrecisionChoice};

/// Rows of a batch.
const ROWS: usize = 40;

const MMOE: &str = "name = \"mmoe\"\nembedding_dim = 3\nexperts = 2\nexpert_units = [6, 5]\ntower_units = [4]\n\
                    activation = \"tanh\"";
/// Whose training reads its state.
const ADAPTDHM: &str =
    "name = \"adaptdhm\"\nembedding_dim = 3\nunits = [6, 5]\nactivation = \"tanh\"\nbeta = 0.1";
/// Every method moves by what the loss is, so that what differs shows.
const SGD: &str = "[dense]\nmethod = \"sgd\"\nrate = 0.25\n[tables]\nmethod = \"sgd\"\nrate = 0.25";
/// Methods that weigh gradients of losses.
const METHODS: [&str; 3] =
    ["method = \"pcgrad\"", "method = \"cagrad\"\nc = 0.4", "method = \"gradnorm\"\nrate = 0.5"];

/// What a value may be off by, as a share of the largest of its tensor; in bf16 what a value moves by.
const F32: f64 = 2e-5;
const BF16: f64 = 0.1;
/// A largest value that is not smaller than this counts.
const LEAST: f64 = 1e-2;

/// A model in training.
#[derive(Clone)]
struct Setting<'a> {
    model: &'a str,
    inputs: Inputs,
    optimizer: &'a str,
    balance: Option<&'a str>,
    frozen: &'a [&'a str],
    batches: Vec<Batch>,
    precision: PrecisionChoice,
    /// Compute capability of the device.
    capability: (u32, u32),
}

impl<'a> Setting<'a> {
    /// Whose second batch is smaller than memory for the others.
    fn new(model: &'a str) -> Setting<'a> {
        Setting {
            model,
            inputs: inputs(model),
            optimizer: SGD,
            balance: None,
            frozen: &[],
            batches: [ROWS, 9, ROWS].map(batch).to_vec(),
            precision: PrecisionChoice::F32,
            capability: (8, 0),
        }
    }

    /// Most rows of a batch.
    fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows).max().unwrap_or(0)
    }

    fn graph(&self, mode: Mode) -> Graph {
        let (_, architecture) = manygate_models::from_table(&self.model.parse().unwrap()).unwrap();
        manygate_models::build(architecture.as_ref(), &self.inputs, mode).unwrap()
    }

    /// With random values.
    fn learner(&self) -> Learner {
        let frozen = self.frozen.iter().map(|&name| name.to_owned()).collect();
        let options = PlanOptions { frozen, ..PlanOptions::default() };
        let optimizer = self.optimizer.parse().unwrap();
        let graph = || self.graph(Mode::Training);
        let mut learner = Learner::new(graph(), options, &optimizer, 3, &Serial, self.rows()).unwrap();
        let (dense, rows) = (Stream::new(10, 0, 0), Stream::new(9, 0, 0));
        learner.params.values.iter_mut().zip(0..).for_each(|(v, i)| *v += 0.1 * dense.normal(i, 0));
        for (t, table) in learner.tables.0.iter_mut().enumerate() {
            let values = (0..table.weights().len() as u64).map(|i| rows.normal(i, t as u64));
            let values: Vec<f32> = values.collect();
            table.set_weights(&values).unwrap();
        }
        if let Some(keys) = self.balance {
            let balance = Balance::from_table(&keys.parse().unwrap()).unwrap();
            learner.balance_by(&balance, graph(), &self.inputs.tasks, 3, &Serial).unwrap();
        }
        self.batches.iter().for_each(|batch| learner.reserve_for(batch));
        learner
    }

    fn on_device(&self, gpu: &Gpu, learner: &Learner) -> DeviceSteps {
        let evaluation = Plan::compile(self.graph(Mode::Evaluation), PlanOptions::default()).unwrap();
        let ordinal = gpu.device().description().ordinal;
        let data = [&self.batches[0], &self.batches[0]];
        DeviceSteps::new(ordinal, self.precision, learner, &evaluation, data, self.rows()).unwrap()
    }

    /// Compares each step. In bf16 what moved is compared: next to it values are too large to show a wrong gradient.
    fn compare(&self) {
        let is_rounded = self.precision != PrecisionChoice::F32;
        let tolerance = if is_rounded { BF16 } else { F32 };
        let gpu = Gpu::of_capability(self.capability);
        let (mut here, mut there) = (self.learner(), self.learner());
        let mut steps = self.on_device(&gpu, &there);
        for (number, batch) in self.batches.iter().enumerate() {
            let told = |what: &str| format!("{}\n{:?} step {}: {what}", self.model, self.balance, number + 1);
            let before = [&here, &there].map(values);
            let expected = here.step(&Serial, batch).unwrap().to_vec();
            let losses = step(&mut steps, &mut there, batch).unwrap();
            assert_close(&losses, &expected, tolerance, &told("losses"));
            let weights = |learner: &Learner| -> Vec<f64> {
                learner.balancer().map_or(vec![], |balancer| balancer.weights().map(|(_, w)| w).collect())
            };
            assert_close(&weights(&there), &weights(&here), tolerance, &told("weights of losses"));
            steps.bring(&mut there).unwrap();
            let after = [&here, &there].map(values);
            let [expected, found] =
                if is_rounded { [0, 1].map(|side| moved(&before[side], &after[side])) } else { after };
            for ((name, found), (_, expected)) in found.into_iter().zip(expected) {
                let least = if is_rounded { 1e-6 } else { LEAST };
                assert_within(&found, &expected, tolerance, least, &told(&name));
            }
        }
        let before = values(&self.learner());
        assert!(self.frozen.contains(&"*") || values(&here) != before, "{}: nothing moves", self.model);
    }

    /// That the second step fails and moves nothing, here and there, when numbers are `scale` times as large: the errors.
    fn fail(&self, scale: f32) -> [Error; 2] {
        let (gpu, mut here, mut there) = (Gpu::new(), self.learner(), self.learner());
        let mut steps = self.on_device(&gpu, &there);
        let [first, second] = [&self.batches[0], &grown(&self.batches[1], scale)];
        here.step(&Serial, first).unwrap();
        step(&mut steps, &mut there, first).unwrap();
        let before = values(&here);
        let expected = here.step(&Serial, second).expect_err("a step that fails");
        assert_eq!(values(&here), before);
        let told = step(&mut steps, &mut there, second).expect_err("the same on the device");
        steps.bring(&mut there).unwrap();
        for ((name, found), (_, expected)) in values(&there).into_iter().zip(before) {
            assert_close(&found, &expected, F32, &name);
        }
        [expected, told]
    }
}

/// The same batch with numbers `scale` times as large.
fn grown(batch: &Batch, scale: f32) -> Batch {
    Batch { dense: batch.dense.iter().map(|v| scale * v).collect(), ..batch.clone() }
}

/// A step on a device, taken to its end.
fn step(steps: &mut DeviceSteps, learner: &mut Learner, batch: &Batch) -> Result<Vec<f64>> {
    let taken = match steps.step(learner, batch)? {
        Some(stepped) => Some(stepped),
        None => steps.finish()?,
    };
    Ok(taken.expect("a step").losses)
}

/// A tensor's name and its values.
type Tensor = (String, Vec<f64>);

/// Everything that a learner moves.
fn values(learner: &Learner) -> Vec<Tensor> {
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
    let tensors = learner.params.tensors().chain(learner.state.tensors());
    let tensors = tensors.map(|(block, values)| (block.name.clone(), wide(values)));
    let tables = learner.tables.0.iter().map(|t| (t.spec().name.clone(), wide(t.values())));
    tensors.chain(tables).collect()
}

/// How far each value has moved.
fn moved(before: &[Tensor], after: &[Tensor]) -> Vec<Tensor> {
    let differences = |((name, before), (_, after)): (&Tensor, &Tensor)| {
        (name.clone(), after.iter().zip(before).map(|(after, before)| after - before).collect())
    };
    before.iter().zip(after).map(differences).collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_within(found, expected, tolerance, LEAST, what);
}

/// That values are within a share of the largest that is expected, or of `least`.
fn assert_within(found: &[f64], expected: &[f64], tolerance: f64, least: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(least, |most: f64, v| most.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * largest, "{what} [{i}]: {found} on the device, {expected} here");
    }
}

/// The same batch without a positive label of `task`.
fn without(task: usize, mut batch: Batch) -> Batch {
    batch.labels[task].fill(0.0);
    batch
}

#[test]
fn gradients_of_losses_are_weighed_along_lists_and_scenarios() {
    let attention = "name = \"attention\"\nembedding_dim = 3\nkind = \"self\"\nhistory = \"history\"\n\
                     target = \"item\"\nattention_head_dim = 2\nunits = [5]\nposition = true\nactivation = \"tanh\"";
    let star = "name = \"star\"\nembedding_dim = 3\nunits = [5]\nscenario_dim = 2\nepsilon = 0.1\n\
                activation = \"tanh\"";
    let own = "name = \"single_scenario\"\nembedding_dim = 3\nbottom_units = [5]\ntower_units = [4]";
    for model in [MMOE, attention, star, own] {
        for method in METHODS {
            Setting { balance: Some(method), ..Setting::new(model) }.compare();
        }
    }
}

#[test]
fn a_loss_without_rows_weighs_nothing() {
    for method in METHODS {
        // Sales count where there was a click.
        let batches = vec![batch(ROWS), without(0, batch(9)), without(0, batch(ROWS)), batch(9)];
        Setting { balance: Some(method), batches, ..Setting::new(MMOE) }.compare();
    }
}

#[test]
fn losses_that_share_nothing_are_weighed() {
    let own = "name = \"single_task\"\nembedding_dim = 3\nbottom_units = [5]\ntower_units = [4]";
    for method in &METHODS[..2] {
        Setting { balance: Some(method), ..Setting::new(own) }.compare();
    }
}

/// A step has one state, however many runs.
#[test]
fn losses_are_weighed_with_the_state_of_the_step() {
    for method in &METHODS[..2] {
        Setting { balance: Some(method), ..Setting::new(ADAPTDHM) }.compare();
    }
}

#[test]
fn losses_by_scenario_are_weighed() {
    for method in METHODS {
        Setting { balance: Some(method), inputs: of_every_kind(MMOE), ..Setting::new(MMOE) }.compare();
    }
}

/// Names of every dense parameter.
const DENSE: &[&str] = &["experts.*", "gates.*", "towers.*"];

#[test]
fn what_is_frozen_stays() {
    for method in METHODS {
        let setting = Setting { balance: Some(method), ..Setting::new(MMOE) };
        for frozen in [&["embedding.item.weight"][..], &["embedding.*"]] {
            Setting { frozen, ..setting.clone() }.compare();
        }
        // A method that measures a layer needs one that learns.
        if !method.contains("gradnorm") {
            for frozen in [DENSE, &["*"]] {
                Setting { frozen, ..setting.clone() }.compare();
            }
        }
    }
}

#[test]
fn a_model_without_tables_is_weighed() {
    let of_numbers = Inputs { tables: vec![], fields: vec![], bags: vec![], ..inputs(MMOE) };
    let numbers_alone = |batch: Batch| Batch { ids: vec![], bags: vec![], ..batch };
    let batches: Vec<Batch> = Setting::new(MMOE).batches.into_iter().map(numbers_alone).collect();
    let setting = Setting { inputs: of_numbers, batches, ..Setting::new(MMOE) };
    setting.compare();
    for method in METHODS {
        let optimizer = &format!("clip_norm = 0.05\nclip_tables = true\n{SGD}");
        Setting { balance: Some(method), optimizer, ..setting.clone() }.compare();
        Setting { balance: Some(method), ..setting.clone() }.compare();
    }
}

#[test]
fn some_losses_are_weighed_and_others_not() {
    for losses in ["[\"like\"]", "[\"buy\", \"click\"]"] {
        for method in METHODS {
            let keys = &format!("{method}\nlosses = {losses}");
            Setting { balance: Some(keys), ..Setting::new(MMOE) }.compare();
        }
    }
}

#[test]
fn gradients_are_clipped_before_anything_moves() {
    for limit in ["clip_norm = 0.02", "clip_value = 1e-3"] {
        for balance in [None, Some(METHODS[0])] {
            let clipped = |tables: bool, frozen: &[&str]| {
                let optimizer = &format!("{limit}\nclip_tables = {tables}\n{SGD}");
                Setting { optimizer, balance, frozen, ..Setting::new(MMOE) }.compare();
            };
            clipped(false, &[]);
            let some: [&[&str]; 4] = [&[], &["embedding.item.weight"], &["embedding.*"], DENSE];
            some.iter().for_each(|frozen| clipped(true, frozen));
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    // Centres are state; gradients are products of inputs and of what comes back to them, losses are not.
    let model = &ADAPTDHM.replace("tanh", "relu");
    for limit in ["clip_norm = 1.0", "clip_value = 1.0"] {
        for balance in [None, Some(METHODS[0])] {
            let optimizer = &format!("{limit}\nclip_tables = true\n{SGD}");
            let mut setting = Setting { optimizer, balance, ..Setting::new(model) };
            setting.inputs.tasks.iter_mut().for_each(|task| task.weight = 1e30);
            let [expected, told] = setting.fail(1e17);
            assert!(matches!(told, Error::NonFiniteGradient { step: 2, .. }), "{told}");
            assert_eq!(told.to_string(), expected.to_string());
        }
    }
}

#[test]
fn a_gradient_of_rows_that_is_not_finite_moves_nothing() {
    let dcn = "name = \"dcn\"\nembedding_dim = 3\ncross_layers = 1\nstructure = \"cross_only\"";
    for balance in [None, Some(METHODS[0])] {
        let optimizer = &format!("clip_norm = 1.0\nclip_tables = true\n{SGD}");
        let frozen = &["cross.*", "head.*"];
        let mut setting = Setting { optimizer, balance, frozen, ..Setting::new(dcn) };
        setting.inputs.tasks.iter_mut().for_each(|task| task.weight = 1e30);
        for told in setting.fail(1e17) {
            assert!(matches!(told, Error::NonFiniteGradient { step: 2, .. }), "{told}");
        }
    }
}

#[test]
fn a_second_look_finds_the_state_as_the_step_did() {
    let keys = "method = \"famo\"\nrate = 2";
    Setting { balance: Some(keys), ..Setting::new(ADAPTDHM) }.compare();
}

/// Rows that so many look-ups name that several blocks sum them, in tables of several widths.
#[test]
fn gradients_of_frequent_rows_are_weighed() {
    let wide = MMOE.replace("embedding_dim = 3", "embedding_dim = 4");
    let mut inputs = inputs(MMOE);
    inputs.tables[1].dim = Some(8);
    let optimizer = &format!("clip_norm = 0.05\nclip_tables = true\n{SGD}");
    let mut crowded = batch(160);
    crowded.ids[1].iter_mut().chain(&mut crowded.bags[0].ids).for_each(|id| *id = (*id).min(1) * 2);
    let batches = vec![crowded, batch(9)];
    for (model, balance) in [(MMOE, Some(METHODS[0])), (&wide, Some(METHODS[2])), (&wide, None)] {
        let setting = Setting { balance, batches: batches.clone(), ..Setting::new(model) };
        Setting { optimizer, inputs: inputs.clone(), ..setting }.compare();
    }
}

#[test]
fn weighed_gradients_in_bf16_come_close() {
    for balance in METHODS {
        let precision = PrecisionChoice::Bf16;
        Setting { balance: Some(balance), precision, ..Setting::new(MMOE) }.compare();
    }
}

/// Large batches of wide experts, whose second layers have both gradients in one launch on Hopper.
#[test]
fn gradients_at_once_come_close() {
    let wide = MMOE.replace("experts = 2\nexpert_units = [6, 5]", "experts = 5\nexpert_units = [136, 72]");
    let wide = wide.replace("tanh", "relu");
    // Of labels that are all alike, gradients of the rows do not cancel out.
    let mut alike = batch(4096);
    alike.labels.iter_mut().for_each(|labels| labels.fill(1.0));
    let (precision, capability) = (PrecisionChoice::Bf16, (9, 0));
    Setting { batches: vec![alike; 2], precision, capability, ..Setting::new(&wide) }.compare();
}

#[test]
fn state_of_rows_moves_with_weighed_gradients() {
    for method in ["adam", "adagrad", "rowwise_adagrad", "ftrl"] {
        let epsilon = if method == "ftrl" { "beta = 1.0" } else { "epsilon = 0.1" };
        let dense = if method == "ftrl" || method == "rowwise_adagrad" { "adagrad" } else { method };
        let optimizer = &format!(
            "clip_norm = 0.5\nclip_tables = true\n[dense]\nmethod = \"{dense}\"\nepsilon = 0.1\n\
             [tables]\nmethod = \"{method}\"\n{epsilon}\nevery = 2"
        );
        let batches = [ROWS, 9, ROWS, ROWS].map(batch).to_vec();
        for balance in [None, Some(METHODS[1])] {
            Setting { optimizer, balance, batches: batches.clone(), ..Setting::new(MMOE) }.compare();
        }
    }
}

/// On the same device, with the same bits: moments, rows with their state, and what methods have learnt come along.
#[test]
fn steps_go_on_from_what_was_brought() {
    let optimizer = "clip_value = 0.1\nclip_tables = true";
    for (model, method) in [
        (ADAPTDHM, "method = \"pcgrad\""),
        (ADAPTDHM, "method = \"famo\""),
        (ADAPTDHM, "method = \"uncertainty\""),
        (MMOE, "method = \"gradnorm\""),
    ] {
        let setting = Setting { balance: Some(method), optimizer, ..Setting::new(model) };
        let (gpu, mut whole, mut parts) = (Gpu::new(), setting.learner(), setting.learner());
        let mut steps = setting.on_device(&gpu, &whole);
        for batch in &setting.batches {
            step(&mut steps, &mut whole, batch).unwrap();
            let mut part = setting.on_device(&gpu, &parts);
            step(&mut part, &mut parts, batch).unwrap();
            part.bring(&mut parts).unwrap();
        }
        steps.bring(&mut whole).unwrap();
        assert_eq!(values(&parts), values(&whole), "{method}");
        assert_eq!(parts.balancer().unwrap().state(), whole.balancer().unwrap().state(), "{method}");
    }
}
