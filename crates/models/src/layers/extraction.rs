//! A level of task-specific and shared experts: a task's gate sees the task's own experts and the shared ones, never
//! another task's.
//!
//! H. Tang, J. Liu, M. Zhao, X. Gong, *Progressive Layered Extraction (PLE)*, RecSys 2020, sections 4.1 and 4.2.
//!
//! ```text
//! a_{t,j} = experts.t.j(q_t)        j = 1..m_t    own experts of task t read task t's state
//! s_k     = experts.shared.k(q_s)   k = 1..m_s    shared experts read the shared state
//! q_t'    = softmax(W_t q_t) [a_{t,1} .. a_{t,m_t}, s_1 .. s_{m_s}]
//! q_s'    = softmax(W_s q_s) [a_{1,1} .. a_{T,m_T}, s_1 .. s_{m_s}]    the shared gate, where there is one
//! ```
//!
//! Parameters, with prefix P: `P.experts.<task>.<j>.*`, `P.experts.shared.<k>.*`, `P.gates.<task>.*`,
//! `P.gates.shared.*`.

use super::mlp::MlpStyle;
use super::moe::{Gate, GateStyle, Readers, mixtures, together};
use super::scenario;
use crate::inputs::Inputs;
use manygate_core::{Error, Result};
use manygate_graph::{Graph, Value};

/// The name that the shared experts and the shared gate have in place of a task's.
pub const SHARED: &str = "shared";

/// Experts and gates of a level.
#[derive(Clone, Copy, Debug)]
pub struct Extraction<'a> {
    /// Experts of each task.
    pub task_experts: usize,
    /// Experts of all tasks.
    pub shared_experts: usize,
    /// Each of them.
    pub expert: MlpStyle<'a>,
    /// Every gate.
    pub gate: GateStyle<'a>,
    /// Whether a task has a gate for each scenario; the shared gate is that of all.
    pub scenario_heads: bool,
}

/// What a level reads.
#[derive(Clone, Copy, Debug)]
pub enum States {
    /// One value is the state of all.
    One(Value),
    /// The states of the tasks and then the shared one, side by side, of equal width.
    Each(Value),
}

impl States {
    /// The state of module `number` of `modules`.
    ///
    /// # Errors
    /// When there is no such module.
    pub fn of(self, g: &mut Graph, number: usize, modules: usize) -> Result<Value> {
        match self {
            States::One(x) => Ok(x),
            States::Each(x) => {
                let width = g.cols(x) / modules;
                g.columns(x, number * width, width)
            }
        }
    }
}

impl Extraction<'_> {
    /// That the numbers of experts and the names of tasks can be used.
    ///
    /// # Errors
    /// With the key that cannot.
    pub fn check(&self, inputs: &Inputs) -> Result<()> {
        for (key, count) in [("task_experts", self.task_experts), ("shared_experts", self.shared_experts)] {
            if count == 0 {
                return Err(Error::config(format!("model.{key}"), "must be at least 1"));
            }
        }
        no_task_is_shared(inputs)
    }

    /// The next states `[batch, tasks · d]`, or `[batch, (tasks + 1) · d]` with that of the shared gate.
    ///
    /// # Errors
    /// When the experts have no layer, gates are to be of scenarios and there are none, a width is 0 or a name is
    /// taken.
    pub fn level(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        prefix: &str,
        states: States,
        shared_gate: bool,
    ) -> Result<Value> {
        let scenarios = scenario::of_heads(inputs, self.scenario_heads)?;
        let modules: Vec<&str> = inputs.task_names().chain([SHARED]).collect();
        let mut readers = Vec::with_capacity(modules.len());
        for (number, module) in modules.iter().enumerate() {
            let input = states.of(g, number, modules.len())?;
            let is_task = number < inputs.tasks.len();
            let count = if is_task { self.task_experts } else { self.shared_experts };
            let experts = (0..count).map(|j| format!("{prefix}experts.{module}.{j}")).collect();
            let gate = Gate {
                prefix: format!("{prefix}gates.{module}"),
                sees: self.sees(inputs, number),
                scenarios: scenarios.filter(|_| is_task),
            };
            let gates = if is_task || shared_gate { vec![gate] } else { Vec::new() };
            readers.push(Readers { input, experts, gates });
        }
        if let States::One(input) = states {
            readers = vec![together(input, readers)];
        }
        mixtures(g, &readers, self.expert, self.gate)
    }

    /// What the gate of a task sees of the bank, its own experts first, and the shared gate: all.
    fn sees(&self, inputs: &Inputs, module: usize) -> Vec<usize> {
        let of_tasks = inputs.tasks.len() * self.task_experts;
        let shared = of_tasks..of_tasks + self.shared_experts;
        if module == inputs.tasks.len() {
            return (0..shared.end).collect();
        }
        (module * self.task_experts..(module + 1) * self.task_experts).chain(shared).collect()
    }
}

/// That no task has the name of what all tasks share.
///
/// # Errors
/// When one has.
pub fn no_task_is_shared(inputs: &Inputs) -> Result<()> {
    if inputs.task_names().any(|name| name == SHARED) {
        let message =
            "no task may be called `shared`, which is the name of the experts of all tasks: rename it";
        return Err(Error::config("tasks", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Task;
    use manygate_kernels::activation::Activation;

    fn extraction(task_experts: usize, shared_experts: usize) -> Extraction<'static> {
        let style = MlpStyle { units: &[4], activation: Activation::Relu, batch_norm: false, dropout: 0.0 };
        let gate = GateStyle { bias: false, hidden: MlpStyle { units: &[], ..style } };
        Extraction { task_experts, shared_experts, expert: style, gate, scenario_heads: false }
    }

    fn inputs(names: [&str; 2]) -> Inputs {
        let task = |name: &str| Task::binary(name);
        Inputs { tasks: names.map(task).to_vec(), ..Inputs::default() }
    }

    #[test]
    fn a_gate_sees_its_own_experts_and_then_the_shared_ones() {
        let (level, inputs) = (extraction(2, 3), inputs(["click", "buy"]));
        assert_eq!(level.sees(&inputs, 0), [0, 1, 4, 5, 6]);
        assert_eq!(level.sees(&inputs, 1), [2, 3, 4, 5, 6]);
        assert_eq!(level.sees(&inputs, 2), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let message = |level: Extraction<'_>, names| level.check(&inputs(names)).unwrap_err().to_string();
        let shared = message(extraction(1, 1), ["click", "shared"]);
        assert!(shared.contains("tasks: no task may be called `shared`"), "{shared}");
        let names = ["click", "buy"];
        assert!(message(extraction(0, 1), names).contains("model.task_experts: must be at least 1"));
        assert!(message(extraction(1, 0), names).contains("model.shared_experts: must be at least 1"));
        extraction(1, 1).check(&inputs(names)).unwrap();
    }
}
