//! Which tensors and tables of the multi-task models several losses share, and which are a task's own.

use manygate_graph::{Mode, Plan, PlanOptions};
use manygate_models::inputs::{Field, Inputs, Table, Task};

fn plan_of(keys: &str, mode: Mode, frozen: &[&str]) -> Plan {
    let task = |name: &str| Task::binary(name);
    let inputs = Inputs {
        tables: ["user", "item"].map(|name| Table { name: name.into(), rows: 5, dim: None }).to_vec(),
        fields: vec![Field { name: "user".into(), table: 0 }, Field { name: "item".into(), table: 1 }],
        dense: 2,
        scenarios: 3,
        tasks: vec![task("click"), task("like")],
        ..Inputs::default()
    };
    let (_, architecture) = manygate_models::from_table(&keys.parse().unwrap()).unwrap();
    let graph = manygate_models::build(architecture.as_ref(), &inputs, mode).unwrap();
    let frozen = frozen.iter().map(|pattern| pattern.to_string()).collect();
    Plan::compile(graph, PlanOptions { frozen, ..PlanOptions::default() }).unwrap()
}

fn plan(keys: &str) -> Plan {
    plan_of(keys, Mode::Training, &[])
}

/// Tensors and tables.
fn names(plan: &Plan) -> Vec<String> {
    let tables = plan.tables().iter().map(|table| table.name.clone());
    plan.layout().blocks().map(|(block, _)| block.name.clone()).chain(tables).collect()
}

/// What is a task's own is named after it, and the other does not reach it; all else both do.
fn expect_shared_beside(plan: &Plan, prefixes: &[&str]) {
    let (mut own, mut shared) = (0, 0);
    for name in names(plan) {
        let owner = |task: &str| prefixes.iter().any(|prefix| name.starts_with(&format!("{prefix}.{task}.")));
        let reached = [0, 1].map(|part| plan.reaches(part, &name));
        let expected = match (owner("click"), owner("like")) {
            (false, false) => [true, true],
            owners => [owners.0, owners.1],
        };
        assert_eq!(reached, expected, "{name}");
        assert!(plan.learns(&name));
        *(if expected == [true, true] { &mut shared } else { &mut own }) += 1;
    }
    assert!(own > 0 && shared > 0, "{own} own, {shared} shared");
}

#[test]
fn gates_and_towers_of_mmoe_are_a_tasks_own() {
    for norm in ["none", "batch"] {
        let sizes = "experts = 3\nexpert_units = [6, 5]\ntower_units = [4]";
        let keys = format!("name = \"mmoe\"\nnorm = \"{norm}\"\n{sizes}");
        expect_shared_beside(&plan(&keys), &["gates", "towers"]);
        let gates = "gate_bias = true\ngate_units = [3]\ntower_units = []";
        expect_shared_beside(
            &plan(&format!("{keys}\n{gates}").replace("tower_units = [4]\n", "")),
            &["gates", "towers"],
        );
    }
}

#[test]
fn experts_gates_and_towers_of_cgc_are_a_tasks_own() {
    for norm in ["none", "batch"] {
        let sizes = "task_experts = 2\nexpert_units = [6, 5]\ntower_units = [4]";
        let keys = format!("name = \"cgc\"\nnorm = \"{norm}\"\n{sizes}");
        expect_shared_beside(&plan(&keys), &["experts", "gates", "towers"]);
    }
}

#[test]
fn the_last_level_of_ple_is_a_tasks_own() {
    let keys = "name = \"ple\"\nexpert_units = [6, 5]\ntower_units = [4]";
    let own = ["levels.1.experts", "levels.1.gates", "levels.0.gates", "towers"];
    let plan = plan(keys);
    assert!(plan.reaches(0, "levels.0.experts.like.0.0.weight"), "through the shared state");
    assert!(names(&plan).iter().all(|name| !name.starts_with("levels.1.gates.shared")));
    expect_shared_beside(&plan, &own);
}

#[test]
fn towers_of_shared_bottom_are_a_tasks_own() {
    for (norm, towers) in [("none", "[4]"), ("batch", "[4, 3]"), ("none", "[]")] {
        let sizes = format!("bottom_units = [6]\ntower_units = {towers}");
        expect_shared_beside(
            &plan(&format!("name = \"shared_bottom\"\nnorm = \"{norm}\"\n{sizes}")),
            &["towers"],
        );
    }
}

#[test]
fn stars_of_star_are_a_tasks_own() {
    for partitioned in [true, false] {
        let keys = format!(
            "name = \"star\"\nunits = [6, 5]\npartitioned_norm = {partitioned}\nauxiliary = \"none\""
        );
        expect_shared_beside(&plan(&keys), &["star"]);
    }
}

const MMOE: &str = "name = \"mmoe\"\nexperts = 3\nexpert_units = [6, 5]\ntower_units = [4]";

#[test]
fn ranges_are_those_of_the_tensors() {
    let plan = plan(MMOE);
    for part in 0..2 {
        let reached = plan.reached_by(part);
        let ranges = reached.ranges();
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        for ((block, range), &is_reached) in plan.layout().blocks().zip(reached.tensors()) {
            let within = ranges.iter().any(|r| r.start <= range.start && range.end <= r.end);
            let beside = ranges.iter().all(|r| r.end <= range.start || range.end <= r.start);
            assert!(if is_reached { within } else { beside }, "{}", block.name);
        }
        assert_eq!(reached.tables(), [true, true]);
    }
}

#[test]
fn what_is_frozen_is_not_reached() {
    let plan = plan_of(MMOE, Mode::Training, &["experts.1.*", "gates.like.*", "embedding.item.*"]);
    for name in names(&plan) {
        let frozen =
            ["experts.1.", "gates.like.", "embedding.item."].iter().any(|prefix| name.starts_with(prefix));
        assert_eq!(plan.learns(&name), !frozen, "{name}");
    }
    assert!(!plan.learns("no such tensor"));
}

#[test]
fn nothing_learns_in_an_evaluation_plan() {
    let plan = plan_of(MMOE, Mode::Evaluation, &[]);
    assert!(names(&plan).iter().all(|name| !plan.learns(name)));
}
