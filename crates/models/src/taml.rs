//! Several learners a task, each with a view of its own over experts of three granularities; their scores are fused, and
//! the fused score teaches each of them.
//!
//! X. Liu, Q. Jia, C. Wu, J. Li, Q. Dai, L. Bo, R. Zhang, R. Tang, *Task Adaptive Multi-learner Network for Joint CTR and
//! CVR Estimation*, WWW 2023 Companion.
//!
//! ```text
//! c_k       = experts.shared.k(x0)               seen by every learner of every task
//! a_{t,j}   = experts.t.j(x0)                    seen by the learners of task t
//! e_{t,m,i} = learners.t.m.experts.i(x0)         seen by one learner
//! S         = [e_{t,m,*}, a_{t,*}, c_*]          [batch, n, d]
//! z_{t,m}   = learners.t.m.tower(softmax(W_{t,m} x0) S)     p_{t,m} = σ(z_{t,m})
//! p_t       = mean_m p_{t,m}                     the prediction          q_t = p_t, detached
//! F_t = BCE(y_t, p_t)    A_t = mean_m BCE(y_t, p_{t,m})    D_t = mean_m dist(q_t, p_{t,m}) over all rows
//! L   = Σ_t w_t (fused_weight F_t + learner_weight A_t + distill_weight D_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `experts.{shared,<task>}.<k>.<i>.*`, `learners.<task>.<m>.experts.<e>.<i>.*`,
//! `learners.<task>.<m>.gate.weight` (`.bias`, `.hidden.<i>.*` as configured), `learners.<task>.<m>.tower.<i>.*`.
//! Everything is computed from logits ([`FuseScores`]): a mean of rounded scores would lose what saturated learners say.
//! With labels of another kind, scores are means, and the distance is that of their laws.
//!
//! Options: `fuse = "logit"` takes the mean of the z, `"gate"` learnt weights (`learners.<task>.fuse.weight`). With
//! `nested_gates` a gate of the task (`gates.<task>.*`) mixes a_t and c to one state, which a learner sees beside its own.
//! `levels` above 1 are levels of [`ple`](crate::ple) below (`levels.<l>.*`): learners read the states of their task. With
//! `entire_space` a task that comes after another is multiplied by it, learner by learner, and trained over all rows, as in
//! [`esmm`](crate::esmm). Others do not detach the teacher, or with it F_t, which then trains nothing; or they average
//! logits where scores are meant.
//!
//! `scenario_heads`: a gate and a tower for each learner and scenario, `learners.<task>.<m>.gate.<scenario>.*` and
//! `learners.<task>.<m>.tower.<scenario>.<i>.*`, of which a row computes its own scenario's; so do the gates of a task,
//! `gates.<task>`, `levels.<l>.gates.<task>` and `learners.<task>.fuse`.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName, SCENARIO_HEADS};
use crate::inputs::{Inputs, Task};
use crate::layers::concat::concat;
use crate::layers::extraction::{Extraction, SHARED, States, no_task_is_shared};
use crate::layers::linear::{self, Head};
use crate::layers::mlp::{MlpInput, MlpStyle};
use crate::layers::moe::{
    Gate, GateStyle, Readers, bank_and_logits_of_all, mix, show_gates, show_readers, together,
};
use crate::layers::{scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Distance, FuseScores, LearnerLoss, Link, ProductLogit, Sigmoid};
use manygate_graph::{Graph, Over, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// How the scores of learners become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fuse {
    /// Their mean.
    Score,
    /// The score of the mean logit.
    Logit,
    /// Their mean by learnt weights.
    Gate,
}

/// How far a learner is from the fused score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Distill {
    /// Kullback-Leibler.
    Kl,
    /// The square of the difference.
    Mse,
}

/// Configuration of taml.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Taml {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    learners: usize,
    learner_experts: usize,
    task_experts: usize,
    shared_experts: usize,
    expert_units: Vec<usize>,
    gate_bias: bool,
    gate_units: Vec<usize>,
    nested_gates: bool,
    levels: usize,
    tower_units: Vec<usize>,
    fuse: Fuse,
    entire_space: bool,
    distill: Distill,
    fused_weight: f64,
    learner_weight: f64,
    distill_weight: f64,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Taml {
    fn default() -> Self {
        Taml {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            learners: 3,
            learner_experts: 1,
            task_experts: 1,
            shared_experts: 2,
            expert_units: vec![256, 128],
            gate_bias: false,
            gate_units: Vec::new(),
            nested_gates: false,
            levels: 1,
            tower_units: vec![64],
            fuse: Fuse::Score,
            entire_space: false,
            distill: Distill::Kl,
            fused_weight: 1.0,
            learner_weight: 1.0,
            distill_weight: 0.1,
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 18] = [
    Key { name: "learners", default: "3", doc: "learners of each task" },
    Key { name: "learner_experts", default: "1", doc: "experts of each learner alone" },
    Key { name: "task_experts", default: "1", doc: "experts of all learners of a task" },
    Key { name: "shared_experts", default: "2", doc: "experts of all learners of all tasks" },
    Key { name: "expert_units", default: "[256, 128]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "false", doc: "whether gates have a bias" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of each gate" },
    Key {
        name: "nested_gates",
        default: "false",
        doc: "whether a gate of the task mixes its experts and the shared ones before a learner's gate",
    },
    Key { name: "levels", default: "1", doc: "levels of experts; all below the last are those of ple" },
    Key { name: "tower_units", default: "[64]", doc: "hidden widths of each learner's tower" },
    Key {
        name: "fuse",
        default: "\"score\"",
        doc: "score, logit or gate: the mean of scores, of logits, or of scores by learnt weights",
    },
    Key {
        name: "entire_space",
        default: "false",
        doc: "whether a task with `after` is multiplied by the one it comes after and trained over all rows",
    },
    Key { name: "distill", default: "\"kl\"", doc: "kl or mse: how far a learner is from the fused score" },
    Key { name: "fused_weight", default: "1.0", doc: "weight of the loss of the fused score" },
    Key { name: "learner_weight", default: "1.0", doc: "weight of the mean loss of the learners" },
    Key {
        name: "distill_weight",
        default: "0.1",
        doc: "weight of the learners' distance from the fused score",
    },
    DROPOUT,
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "taml",
    aliases: &[],
    relation: Relation::Cascade,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "several learners a task over shared, task and own experts; the fused score teaches each",
    paper: "X. Liu et al., \"Task Adaptive Multi-learner Network for Joint CTR and CVR Estimation\", WWW 2023 Companion",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<Taml>(keys)?)),
};

impl Architecture for Taml {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check(inputs)?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let expert = common.mlp(&self.expert_units);
        let mut states = States::One(trunk::trunk(g, inputs, common.embedding)?);
        let &Taml { task_experts, shared_experts, scenario_heads, .. } = self;
        for l in 0..self.levels - 1 {
            let extraction = Extraction { task_experts, shared_experts, expert, gate, scenario_heads };
            states = States::Each(extraction.level(g, inputs, &format!("levels.{l}."), states, true)?);
        }
        let h = self.views(g, inputs, states, expert, gate)?;
        let prefix = |task: &str, m: usize| format!("learners.{task}.{m}.tower");
        let style = common.mlp(&self.tower_units);
        let learners =
            towers::several(g, inputs, self.learners, prefix, MlpInput::Each(h), style, scenario_heads)?;
        let mut fused: Vec<Value> = Vec::with_capacity(learners.len());
        for (t, (task, &z)) in inputs.tasks.iter().zip(&learners).enumerate() {
            let state = states.of(g, t, inputs.tasks.len() + 1)?;
            let (mut z, mut score) = (z, self.fuse(g, inputs, task, z, state)?);
            if let Some(before) = task.after.filter(|_| self.entire_space) {
                let name = format!("{}_given_{}", task.name, inputs.tasks[before].name);
                let given = g.add(format!("probability.{name}"), Sigmoid, &[score])?;
                g.output(name, given);
                score = g.add(format!("{}.reached", task.name), ProductLogit, &[fused[before], score])?;
                z = g.add(format!("{}.learners_reached", task.name), ProductLogit, &[fused[before], z])?;
            }
            fused.push(score);
            self.losses(g, task, t, z, score)?;
        }
        Ok(())
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl Taml {
    fn check(&self, inputs: &Inputs) -> Result<()> {
        for (key, count) in [
            ("learners", self.learners),
            ("learner_experts", self.learner_experts),
            ("task_experts", self.task_experts),
            ("shared_experts", self.shared_experts),
            ("levels", self.levels),
        ] {
            if count == 0 {
                return Err(Error::config(format!("model.{key}"), "must be at least 1"));
            }
        }
        config::check_factors(&[
            ("fused_weight", self.fused_weight),
            ("learner_weight", self.learner_weight),
            ("distill_weight", self.distill_weight),
        ])?;
        no_task_is_shared(inputs)?;
        if self.entire_space { check_entire_space(inputs) } else { Ok(()) }
    }

    /// What each learner's tower reads: `[batch, tasks · learners · d]`.
    fn views(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        states: States,
        expert: MlpStyle<'_>,
        gate: GateStyle<'_>,
    ) -> Result<Value> {
        let scenarios = scenario::of_heads(inputs, self.scenario_heads)?;
        let (tasks, own) = (inputs.tasks.len(), self.learner_experts);
        let private = tasks * self.learners * own;
        let common = tasks * self.task_experts + self.shared_experts;
        // The bank: experts of each learner, then those of each task, then the shared ones.
        let of_task = |from: usize, t: usize| {
            let of_all = tasks * self.task_experts;
            let of_task = t * self.task_experts..(t + 1) * self.task_experts;
            of_task.chain(of_all..common).map(move |e| from + e).collect::<Vec<_>>()
        };
        let of_learner = |t: usize, m: usize| {
            let from = (t * self.learners + m) * own;
            // A nested gate sees one state of its task, behind the experts of all learners.
            let rest = if self.nested_gates { vec![private + t] } else { of_task(private, t) };
            (from..from + own).chain(rest).collect::<Vec<_>>()
        };
        let modules: Vec<&str> = inputs.task_names().chain([SHARED]).collect();
        let (mut learners, mut others) = (Vec::new(), Vec::new());
        for (number, module) in modules.iter().enumerate() {
            let input = states.of(g, number, modules.len())?;
            let (is_task, mut gates) = (number < tasks, Vec::new());
            if is_task {
                let readers = self.learner_readers(input, module, |m| of_learner(number, m));
                learners.push(readers.by_scenario(scenarios));
                if self.nested_gates {
                    gates.push(Gate::new(format!("gates.{module}"), of_task(0, number)));
                }
            }
            let count = if is_task { self.task_experts } else { self.shared_experts };
            let experts = (0..count).map(|k| format!("experts.{module}.{k}")).collect();
            others.push(Readers { input, experts, gates }.by_scenario(scenarios));
        }
        let mut readers: Vec<Readers> = learners.into_iter().chain(others).collect();
        if let States::One(input) = states {
            readers = vec![together(input, readers)];
        }
        let read = bank_and_logits_of_all(g, &readers, expert, gate)?;
        if self.nested_gates {
            return self.nested(g, tasks, &readers, read);
        }
        let (bank, logits) = read;
        show_readers(g, &readers, [logits, bank])?;
        mix(g, logits, bank, private + common, &sees_of(&gates_of(&readers)))
    }

    /// What towers read where a gate of each task, behind those of all learners, mixes what its learners share to a state.
    fn nested(
        &self,
        g: &mut Graph,
        tasks: usize,
        readers: &[Readers],
        (bank, logits): (Value, Value),
    ) -> Result<Value> {
        let experts: Vec<String> = readers.iter().flat_map(|r| r.experts.clone()).collect();
        let gates = gates_of(readers);
        let (of_learners, of_tasks) = gates.split_at(tasks * self.learners);
        let (own, common) = experts.split_at(of_learners.len() * self.learner_experts);
        let d = g.cols(bank) / experts.len();
        let own_bank = g.columns(bank, 0, own.len() * d)?;
        let common_bank = g.columns(bank, own.len() * d, common.len() * d)?;
        let width = of_learners.iter().map(|gate| gate.sees.len()).sum();
        let own_logits = g.columns(logits, 0, width)?;
        let task_logits = g.columns(logits, width, g.cols(logits) - width)?;

        show_gates(g, of_tasks, common, [task_logits, common_bank], 0)?;
        let states = mix(g, task_logits, common_bank, common.len(), &sees_of(of_tasks))?;
        let bank = concat(g, "learners.bank", &[own_bank, states])?;
        // A state is called by the gate that mixed it.
        let seen: Vec<String> = own.iter().chain(of_tasks.iter().map(|gate| &gate.prefix)).cloned().collect();
        show_gates(g, of_learners, &seen, [own_logits, bank], 0)?;
        mix(g, own_logits, bank, seen.len(), &sees_of(of_learners))
    }

    /// Experts and gates of the learners of a task.
    fn learner_readers(&self, input: Value, task: &str, sees: impl Fn(usize) -> Vec<usize>) -> Readers {
        let prefix = |m: usize| format!("learners.{task}.{m}");
        let experts = |m: usize| (0..self.learner_experts).map(move |e| format!("{}.experts.{e}", prefix(m)));
        let gate = |m: usize| Gate::new(format!("{}.gate", prefix(m)), sees(m));
        Readers {
            input,
            experts: (0..self.learners).flat_map(experts).collect(),
            gates: (0..self.learners).map(gate).collect(),
        }
    }

    /// The number whose score is the fused one: `[batch, 1]`.
    fn fuse(&self, g: &mut Graph, inputs: &Inputs, task: &Task, z: Value, state: Value) -> Result<Value> {
        let (name, link) = (format!("fused.{}", task.name), tasks::link(task.kind));
        match self.fuse {
            Fuse::Score => g.add(name, FuseScores::mean(link), &[z]),
            Fuse::Logit => g.add(name, FuseScores::mean(Link::Value), &[z]),
            Fuse::Gate => {
                let prefix = format!("learners.{}.fuse", task.name);
                let (prefixes, scenarios) = match scenario::of_heads(inputs, self.scenario_heads)? {
                    None => (vec![prefix.clone()], 1),
                    Some(scenarios) => (scenario::prefixes(&prefix, scenarios), scenarios),
                };
                let (heads, bare) = (Head::of_each(&prefixes, self.learners), Activation::Identity);
                let weights = linear::by_scenario(g, &prefix, &heads, scenarios, state, false, bare)?;
                g.add(name, FuseScores::gated(link), &[z, weights])
            }
        }
    }

    /// The prediction of task number `t`, and in training its three losses.
    fn losses(&self, g: &mut Graph, task: &Task, t: usize, z: Value, fused: Value) -> Result<()> {
        let weighted = |weight: f64| Task { weight: task.weight * weight as f32, ..task.clone() };
        // A part without weight is computed, for whoever watches it, and moves nothing.
        let counted = |g: &mut Graph, weight: f64, z| if weight == 0.0 { g.stop_gradient(z) } else { z };
        let of_fused = counted(g, self.fused_weight, fused);
        tasks::head(g, &weighted(self.fused_weight), t, of_fused, &format!("{}.fused", task.name))?;
        if !g.is_training() {
            return Ok(());
        }
        let link = tasks::link(task.kind);
        let name = format!("{}.learners", task.name);
        let part = g.loss(tasks::part(&weighted(self.learner_weight), &name, task.space))?;
        let learners = counted(g, self.learner_weight, z);
        g.add(format!("loss.{name}"), LearnerLoss::of_label(part, link, t, task.space), &[learners])?;
        let name = format!("{}.distill", task.name);
        let part = g.loss(tasks::part(&weighted(self.distill_weight), &name, Over::Rows))?;
        let distance = match self.distill {
            Distill::Kl => Distance::Divergence,
            Distill::Mse => Distance::Square,
        };
        let (learners, teacher) = (counted(g, self.distill_weight, z), g.stop_gradient(fused));
        let loss = LearnerLoss::of_teacher(part, link, distance);
        g.add(format!("loss.{name}"), loss, &[learners, teacher]).map(|_| ())
    }
}

fn gates_of(readers: &[Readers]) -> Vec<&Gate> {
    readers.iter().flat_map(|readers| &readers.gates).collect()
}

fn sees_of(gates: &[&Gate]) -> Vec<Vec<usize>> {
    gates.iter().map(|gate| gate.sees.clone()).collect()
}

/// That tasks which come after others can be multiplied by them.
fn check_entire_space(inputs: &Inputs) -> Result<()> {
    tasks::all_binary(inputs, ENTRY.name)?;
    let wrong = |message: String| Err(Error::config("model.entire_space", message));
    if inputs.tasks.iter().all(|task| task.after.is_none()) {
        return wrong("no task comes after another: say so with `after`, or leave this out".to_owned());
    }
    for (t, task) in inputs.tasks.iter().enumerate().filter(|(_, task)| task.after.is_some()) {
        if task.space.is_some() {
            return wrong(format!("`{}` is trained over all rows: remove its `space`", task.name));
        }
        if task.after.is_some_and(|before| before >= t) {
            return wrong(format!("list `{}` behind the task that it comes after", task.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use manygate_graph::Mode;

    fn check(keys: &str, after: [Option<usize>; 2], space: Option<usize>) -> String {
        let taml: Taml = config::parse(&keys.parse().unwrap()).unwrap();
        let task = |name: &str, after, space| Task { after, space, ..Task::binary(name) };
        let tasks = vec![task("click", after[0], None), task("buy", after[1], space)];
        taml.check(&Inputs { tasks, ..Inputs::default() }).map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let none = [None, None];
        for key in ["learners", "learner_experts", "task_experts", "shared_experts", "levels"] {
            let message = check(&format!("{key} = 0"), none, None);
            assert!(message.contains(&format!("model.{key}: must be at least 1")), "{message}");
        }
        for key in ["fused_weight", "learner_weight", "distill_weight"] {
            let message = check(&format!("{key} = -0.5"), none, None);
            assert!(message.contains(&format!("model.{key}: must be a number from 0 up")), "{message}");
        }
        assert_eq!(check("", none, Some(0)), "");
    }

    #[test]
    fn nested_gates_are_shown_with_the_states_that_learners_see() {
        let keys =
            "learners = 1\nlearner_experts = 2\nexpert_units = [4]\nnested_gates = true\nshared_experts = 1";
        let taml: Taml = config::parse(&keys.parse().unwrap()).unwrap();
        let tasks = ["click", "buy"].map(Task::binary).to_vec();
        let mut g = Graph::new(Mode::Evaluation);
        taml.build(&mut g, &Inputs { dense: 2, tasks, ..Inputs::default() }).unwrap();
        let shown: Vec<(&str, String)> =
            g.gates().iter().map(|gate| (gate.name.as_str(), gate.of.join(" "))).collect();
        let of_learner =
            |task: &str| format!("learners.{task}.0.experts.0 learners.{task}.0.experts.1 gates.{task}");
        let expected = [
            ("gates.click", "experts.click.0 experts.shared.0".to_owned()),
            ("gates.buy", "experts.buy.0 experts.shared.0".to_owned()),
            ("learners.click.0.gate", of_learner("click")),
            ("learners.buy.0.gate", of_learner("buy")),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_entire_space_needs_a_chain_over_all_rows() {
        let keys = "entire_space = true";
        assert_eq!(check(keys, [None, Some(0)], None), "");
        for (after, space, told) in [
            ([None, None], None, "no task comes after another"),
            ([None, Some(0)], Some(0), "remove its `space`"),
            ([Some(1), None], None, "list `click` behind the task"),
        ] {
            let message = check(keys, after, space);
            assert!(message.contains("model.entire_space: ") && message.contains(told), "{message}");
        }
    }
}
