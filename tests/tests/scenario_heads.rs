//! A head for each task and scenario, and a network for each scenario: equal weights give the predictions of one head,
//! a scenario's rows move its own alone, and the number of scenarios costs nothing.

use manygate_core::{Batch, Serial, Stream};
use manygate_embedding::{SparseGradients, Table, Tables};
use manygate_graph::{Draws, Input, Mode, Parameters, Plan, PlanOptions, RowOrder, Workspace, name_hash};
use manygate_models::inputs::{self, Inputs};
use manygate_models::{build, from_table};
use manygate_runtime::Predictor;
use std::collections::BTreeMap;
use std::sync::Arc;

const IDS: usize = 7;
const ROWS: usize = 60;
const SCENARIOS: usize = 4;
/// Of which no row is.
const ABSENT: usize = 2;

/// A model without heads of scenarios, and the same with them.
fn pairs() -> Vec<(String, String)> {
    let models = [
        "name = \"shared_bottom\"\nbottom_units = [6]\ntower_units = [4]",
        "name = \"single_task\"\nbottom_units = [6]\ntower_units = [4, 3]",
        "name = \"moe\"\nexperts = 3\nexpert_units = [6]\ntower_units = []",
        "name = \"mmoe\"\nexperts = 3\nexpert_units = [6]\ntower_units = [4]\ngate_bias = true",
        "name = \"mmoe\"\nexperts = 3\nexpert_units = [6]\ntower_units = [4]\ngate_units = [5]\ntop_k = 2",
        "name = \"cgc\"\ntask_experts = 2\nexpert_units = [6]\ntower_units = [4]",
        "name = \"ple\"\nlevels = 3\nexpert_units = [6]\ntower_units = [4]\ngate_units = [5]",
        "name = \"esmm\"\ntower_units = [4]",
        "name = \"stem\"\nlevels = 2\nexpert_units = [6]\ntower_units = [4]\ngate_units = [5]",
        "name = \"taml\"\nlearners = 2\nexpert_units = [6]\ntower_units = [4]\ngate_bias = true",
        "name = \"taml\"\nlearners = 2\nexpert_units = [6]\ntower_units = [4]\nnested_gates = true\nlevels = 2\n\
         fuse = \"gate\"",
        "name = \"aitm\"\nbottom_units = [6]\ntower_units = [4]",
        "name = \"escm2\"\nexperts = 2\nexpert_units = [6]\ntower_units = [4]",
        "name = \"cross_stitch\"\nunits = [6]\ntower_units = [4]",
    ];
    let with_heads = |plain: &str| (plain.to_owned(), format!("{plain}\nscenario_heads = true"));
    let mut pairs: Vec<(String, String)> = models.iter().map(|plain| with_heads(plain)).collect();
    pairs.push((models[0].to_owned(), models[0].replace("shared_bottom", "single_scenario")));
    pairs
}

fn inputs(scenarios: usize) -> Inputs {
    let table = |name: &str| inputs::Table { name: name.into(), rows: IDS, dim: Some(3) };
    let field = |name: &str, table| inputs::Field { name: name.into(), table };
    Inputs {
        tables: vec![table("user"), table("item")],
        fields: vec![field("user", 0), field("item", 1)],
        dense: 2,
        scenarios,
        tasks: ["click", "buy"].map(inputs::Task::binary).to_vec(),
        ..Inputs::default()
    }
}

fn batch() -> Batch {
    let stream = Stream::new(5, 0, 0);
    let below = |r: usize, column: u64, below: usize| stream.below(r as u64, column, below as u64) as u32;
    Batch {
        rows: ROWS,
        ids: (0..2).map(|field| (0..ROWS).map(|r| below(r, field, IDS)).collect()).collect(),
        dense: (0..ROWS * 2).map(|i| stream.normal(i as u64, 9)).collect(),
        dense_width: 2,
        scenario: (0..ROWS).map(|r| [0, 1, 3][below(r, 2, 3) as usize]).collect(),
        labels: (0..2).map(|t| (0..ROWS).map(|r| below(r, 3 + t, 2) as f32).collect()).collect(),
        ..Batch::default()
    }
}

/// The scenario that a tensor is of, and what it is called where all scenarios have one.
fn scenario_of(name: &str) -> Option<(usize, String)> {
    let mut parts: Vec<&str> = name.split('.').collect();
    let at = parts.iter().enumerate().find_map(|(i, &part)| match part {
        "towers" | "gates" => Some(i + 2),
        "tower" | "gate" | "fuse" => Some(i + 1),
        _ => None,
    });
    // Networks of one scenario, not the layers of a network.
    let at = at.or((["embedding", "bottom"].contains(&parts[0]) && parts.len() == 4).then_some(1))?;
    let scenario = parts.get(at)?.parse().ok()?;
    parts.remove(at);
    Some((scenario, parts.join(".")))
}

struct Model {
    plan: Plan,
    params: Parameters,
    state: Parameters,
    tables: Tables,
}

/// Values depend on the name that a tensor has without scenarios.
fn model(keys: &str, has_heads: bool, mode: Mode) -> Model {
    let (_, architecture) = from_table(&keys.parse().unwrap()).unwrap();
    let graph = build(architecture.as_ref(), &inputs(SCENARIOS), mode).unwrap();
    let plan = Plan::compile(graph, PlanOptions::default()).unwrap();
    let values = |name: &str, len: usize| -> Vec<f32> {
        let own = scenario_of(name).filter(|_| has_heads).map(|(_, shared)| shared);
        let stream = Stream::new(name_hash(own.as_deref().unwrap_or(name)), 0, 0);
        (0..len).map(|i| 0.2 + 0.4 * stream.normal(i as u64, 0)).collect()
    };
    let mut params = Parameters::initial(Arc::clone(plan.layout()), 1);
    for (block, range) in plan.layout().blocks() {
        params.values[range.clone()].copy_from_slice(&values(&block.name, range.len()));
    }
    let state = Parameters::initial(Arc::clone(plan.state_layout()), 1);
    let tables = plan.tables().iter().map(|spec| {
        let mut table = Table::zeroed(spec.clone(), 0);
        table.set_weights(&values(&spec.name, spec.rows * spec.dim)).unwrap();
        table
    });
    Model { tables: Tables(tables.collect()), plan, params, state }
}

#[test]
fn equal_heads_are_one_head() {
    let batch = batch();
    let predictions = |keys: &str, has_heads| {
        let Model { plan, params, state, tables } = model(keys, has_heads, Mode::Evaluation);
        let mut predictor = Predictor::new(&plan, &params, &state, &tables, &Serial, ROWS).unwrap();
        let mut out = vec![Vec::new(); plan.output_names().count()];
        predictor.predict(&Serial, &batch, &mut out).unwrap();
        out.concat()
    };
    for (plain, with_heads) in pairs() {
        let (one, many) = (predictions(&plain, false), predictions(&with_heads, true));
        let furthest = one.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(one.len() == many.len() && furthest < 1e-6, "{with_heads}: {furthest}");
    }
}

#[test]
fn a_scenarios_rows_move_its_own_heads() {
    let batch = batch();
    for (_, keys) in pairs() {
        let Model { plan, params, state, tables } = model(&keys, true, Mode::Training);
        let mut order = RowOrder::default();
        let batch = order.arrange(&plan, &batch).unwrap().batch;
        let mut ws = Workspace::new(&plan, 1, ROWS);
        plan.pack(&Serial, &mut ws, &params);
        let (params, state, tables, seeds) = (&params, &state, &tables, &vec![1.0; plan.losses().len()][..]);
        let input = Input { params, state, tables, batch, seeds, draws: Draws::default() };
        plan.run(&Serial, &mut ws, &input).unwrap();
        let mut moved = BTreeMap::new();
        let lanes = plan.gradients(&ws);
        for (block, range) in plan.layout().blocks() {
            let has_any = range.clone().any(|i| (0..lanes.rows()).any(|lane| lanes.row(lane)[i] != 0.0));
            moved.insert(block.name.clone(), has_any);
        }
        let mut sparse = SparseGradients::new(&plan, ROWS);
        sparse.sort(&Serial, batch);
        for (t, spec) in plan.tables().iter().enumerate() {
            moved.insert(spec.name.clone(), !sparse.coalesced(&plan, &ws, t).0.is_empty());
        }
        let of_scenarios = moved.iter().filter_map(|(name, moved)| Some((scenario_of(name)?.0, name, moved)));
        assert!(of_scenarios.clone().any(|(_, name, _)| name.contains("tower")), "{keys}");
        for (scenario, name, &moved) in of_scenarios {
            assert_eq!(moved, scenario != ABSENT, "{keys}: {name}");
        }
    }
}

#[test]
fn the_number_of_scenarios_costs_nothing() {
    for (plain, with_heads) in pairs() {
        let cost = |keys: &str, scenarios| {
            let (_, architecture) = from_table(&keys.parse().unwrap()).unwrap();
            let graph = build(architecture.as_ref(), &inputs(scenarios), Mode::Training).unwrap();
            Plan::compile(graph, PlanOptions::default()).unwrap().multiply_adds()
        };
        assert_eq!(cost(&with_heads, 2), cost(&with_heads, 9), "{with_heads}");
        assert_eq!(cost(&plain, 2), cost(&with_heads, 2), "{with_heads}");
    }
}

#[test]
fn heads_of_scenarios_need_some() {
    for (_, keys) in pairs() {
        let (_, architecture) = from_table(&keys.parse().unwrap()).unwrap();
        let message = build(architecture.as_ref(), &inputs(0), Mode::Training).unwrap_err().to_string();
        assert!(message.contains("the model needs scenarios; name the column"), "{keys}: {message}");
    }
}
