//! Small configurations of every architecture, with each of its options, and what they read, for tests of whole models.

use manygate_core::{Bag, Batch, Stream};
use manygate_kernels::embedding::Pooling;
use manygate_models::inputs::{self, Inputs, TaskKind};

/// Whether a configuration's tasks are a chain of events, all binary and trained over all rows.
pub fn is_chain(model: &str) -> bool {
    ["aitm", "escm2", "esmm"].iter().any(|name| model.contains(name))
}

/// Small versions of every architecture, and two of them with dropout where it has that.
pub fn configurations(model: &str) -> Vec<String> {
    let mut all = plain_configurations(model);
    if model != "causalint" {
        let dropped = [&all[0], &all[all.len() - 1]].map(|keys| format!("{keys}\ndropout = 0.4"));
        all.extend(dropped);
    }
    all
}

/// Without a norm and with one, with gates of every kind.
fn plain_configurations(model: &str) -> Vec<String> {
    let sizes = match model {
        "mmoe" => vec![
            "experts = 3\nexpert_units = [6, 5]\ntower_units = [4]",
            "experts = 2\nexpert_units = [7]\ntower_units = []\ngate_bias = true\ngate_units = [3]",
            "experts = 4\nexpert_units = [5]\ntower_units = [4]\ntop_k = 3\ngate_dropout = 0.4",
            "experts = 2\nexpert_units = [5]\ntower_units = [4]\ngate_units = [3]\nscenario_heads = true",
        ],
        "moe" => vec![
            "experts = 3\nexpert_units = [6, 5]\ntower_units = [4]",
            "experts = 4\nexpert_units = [5]\ntower_units = [4]\ntop_k = 2",
            "experts = 2\nexpert_units = [7]\ntower_units = []\ngate_bias = true\ngate_units = [3]",
        ],
        "cgc" => vec![
            "task_experts = 2\nshared_experts = 1\nexpert_units = [6, 5]\ntower_units = [4]",
            "shared_experts = 2\nexpert_units = [7]\ntower_units = []\ngate_bias = true\ngate_units = [3]",
        ],
        "ple" => vec![
            "task_experts = 2\nexpert_units = [[6, 5], [4]]\ntower_units = [4]",
            "levels = 3\nexpert_units = [5]\ntower_units = []\ngate_bias = true\ngate_units = [3]",
            "expert_units = [5]\ntower_units = []\nscenario_heads = true",
        ],
        "cross_stitch" => {
            vec!["units = [6, 5]\ntower_units = [4]", "units = [5]\ntower_units = []\nper_unit = true"]
        }
        "aitm" => vec![
            "bottom_units = [6, 5]\ntower_units = [4]",
            "bottom_units = [6]\ntransfer_shared = false\ntransfer_bias = true\ninfo_activation = \"none\"",
        ],
        "escm2" => vec![
            "estimate = \"ips\"\nbase = \"none\"\ntower_units = [6, 4]\nleast_propensity = 0.5",
            "experts = 2\nexpert_units = [6, 5]\ntower_units = [4]\nimputation = \"sigmoid\"\n\
             propensity_gradient = true\ngate_units = [3]",
            "experts = 2\nexpert_units = [5]\ntower_units = []\ngate_bias = true\nscenario_heads = true",
        ],
        "stem" => vec![
            "expert_units = [6, 5]\ntower_units = [4]\ngate_units = [3]",
            "levels = 2\ntask_experts = 2\nexpert_units = [5]\ntower_units = []\ngate_units = []",
            "levels = 2\nexpert_units = [5]\ntower_units = []\ngate_units = [3]\nscenario_heads = true",
        ],
        "taml" => vec![
            "learners = 2\nexpert_units = [6, 5]\ntower_units = [4]\ndistill = \"mse\"",
            "learners = 3\nlearner_experts = 2\nshared_experts = 1\nexpert_units = [5]\ntower_units = []\n\
             nested_gates = true\nlevels = 2\nfuse = \"gate\"\ngate_bias = true\ngate_units = [3]",
            "learners = 2\nexpert_units = [5]\ntower_units = [4]\nnested_gates = true\nfuse = \"gate\"\n\
             scenario_heads = true",
            "learners = 2\nexpert_units = [5]\ntower_units = [4]\nfuse = \"logit\"\nnested_gates = true",
        ],
        "esmm" => vec![
            "tower_units = [6, 4]",
            "tower_units = []\nconditional = [\"a\", \"b\", \"c\"]",
            "tower_units = [4]\nscenario_heads = true",
        ],
        "shared_bottom" | "single_task" => vec![
            "bottom_units = [6, 5]\ntower_units = [4]",
            "bottom_units = [6]\ntower_units = []",
            "bottom_units = [6]\ntower_units = [4]\nscenario_heads = true",
        ],
        "single_scenario" => vec!["bottom_units = [6, 5]\ntower_units = [4]"],
        "apg" => {
            let kinds = [
                "hyper_units = [4]\ngenerate_bias = true\nover_rank = 3",
                "hyper_units = []\ncondition = \"self\"\nover_rank = 0",
                "hyper_units = [4]\ncondition = \"mix\"\ncondition_fields = [\"item\"]\ngenerate_bias = true",
                "hyper_units = [4]\ngenerate = \"low_rank\"\ngenerate_bias = true",
                "hyper_units = []\ngenerate = \"full\"",
                "hyper_units = []\ngenerate = \"full\"\ncondition = \"mix\"\ncondition_fields = [\"user\"]",
            ];
            let sizes =
                "embedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\nrank = 2\nscenario_dim = 2";
            return kinds.iter().map(|kind| format!("name = \"apg\"\n{sizes}\n{kind}")).collect();
        }
        "hamur" => {
            let kinds = [
                "adapters = [1]\nhyper_units = [4]",
                "adapters = [0, 1]\nhyper_units = []\nbackbone = \"shared\"\nrunning_variance = \"unbiased\"",
                "adapters = []\nnorm = \"batch\"",
                "adapters = [0]\nhyper_units = [4]\ncondition = \"scenario\"\nscenario_dim = 2",
            ];
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\nadapter_width = 3\nrank = 2\n\
                         epsilon = 0.1";
            return kinds.iter().map(|kind| format!("name = \"hamur\"\n{sizes}\n{kind}")).collect();
        }
        "attention" => {
            let kinds = [
                "kind = \"din\"\nunit_units = [4]\nunit_activation = \"tanh\"\nactivation = \"dice\"",
                "kind = \"din\"\nunit_units = [4, 3]\nunit_activation = \"dice\"\nsoftmax = true\n\
                 activation = \"prelu\"",
                "kind = \"target\"\nactivation = \"tanh\"",
                "kind = \"self\"\nattention_residual = true\nattention_norm = true\nffn = 4\nlayers = 2\n\
                 position = true\nattention_pool = \"sum\"\nactivation = \"tanh\"",
                "kind = \"self\"\nactivation = \"tanh\"",
            ];
            let sizes = "embedding_dim = 3\nhistory = \"history\"\ntarget = \"item\"\nattention_head_dim = 2\n\
                         units = [5, 4]";
            return kinds.iter().map(|kind| format!("name = \"attention\"\n{sizes}\n{kind}")).collect();
        }
        "sarnet" => {
            let history =
                "history = \"history\"\nhistory_scenarios = \"history_scenarios\"\ntarget = \"item\"";
            let fairness = "fairness = \"weight\"\nscenario_experts = 1";
            let kinds = [
                format!("{history}\nexpert_units = [4, 3]"),
                format!("{fairness}\nexpert_units = [4]\nbias_units = [3]"),
                format!("{history}\n{fairness}\nexpert_units = [4]\nbias_units = []"),
            ];
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\nscenario_dim = 2\nattention_units = [4]\n\
                         shared_experts = 2";
            return kinds.iter().map(|kind| format!("name = \"sarnet\"\n{sizes}\n{kind}")).collect();
        }
        "star" => {
            let norms = ["true", "false"].map(|norm| format!("partitioned_norm = {norm}"));
            let kinds = ["none", "raw", "normalized"].map(|kind| format!("auxiliary = \"{kind}\""));
            let both = norms.iter().flat_map(|norm| kinds.iter().map(move |kind| format!("{norm}\n{kind}")));
            return both
                .map(|keys| {
                    format!(
                        "name = \"star\"\nembedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\n\
                         auxiliary_units = [4]\nscenario_dim = 2\nepsilon = 0.1\n{keys}"
                    )
                })
                .collect();
        }
        "hinet" => {
            let sizes = "scenario_dim = 2\nshared_sub_experts = 2\nsub_experts = 2\nsub_units = [5, 4]\n\
                         common_experts = 1\nexpert_units = [4, 3]";
            let kinds = [
                "attention = \"others\"\nextraction = \"scenario_task\"\ntask_experts = 2\ntower_units = [3]",
                "attention = \"drop\"\nextraction = \"task\"\ntask_experts = 1\ntower_units = []",
            ];
            let keys = |kind: &&str| {
                format!("name = \"hinet\"\nembedding_dim = 3\nactivation = \"tanh\"\n{sizes}\n{kind}")
            };
            return kinds.iter().map(keys).collect();
        }
        "m3oe" => {
            let kinds = [
                "layer_norm = true\nagnostic_units = []\ntower_units = [3]",
                "layer_norm = false\nagnostic_units = [3]\ntower_units = []\ngate_detach = true",
            ];
            let sizes = "star_width = 5\nwidth = 4\nexperts = 2\nexpert_width = 4";
            let keys = |kind: &&str| {
                format!("name = \"m3oe\"\nembedding_dim = 3\nactivation = \"tanh\"\n{sizes}\n{kind}")
            };
            return kinds.iter().map(keys).collect();
        }
        "adaptdhm" => {
            let keys =
                "name = \"adaptdhm\"\nembedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\nrouting = 2";
            return vec![keys.to_owned()];
        }
        "causalint" => {
            let metas = ["none", "representation", "parameter"];
            let sizes = "units = [6, 5]\ntransfer = 3\ninner_rate = 2.0\nconflict_weight = 0.8";
            let keys =
                |meta: &&str| format!("name = \"causalint\"\nembedding_dim = 3\nmeta = \"{meta}\"\n{sizes}");
            return metas.iter().map(keys).collect();
        }
        "lhuc" => {
            let kinds = [
                "form = \"vector\"\namplitude = \"sigmoid\"\nsite = \"output\"",
                "form = \"vector\"\namplitude = \"exp\"\nsite = \"input\"\ntower_units = []",
                "form = \"gate\"\namplitude = \"sigmoid\"\nsite = \"input\"\ngate_units = []\ngate_general = false",
                "form = \"gate\"\namplitude = \"linear\"\ngate_units = [3]\ngate_fields = [\"item\"]",
            ];
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\nscenario_dim = 2";
            return kinds.map(|kind| format!("name = \"lhuc\"\n{sizes}\n{kind}")).to_vec();
        }
        "pepnet" => {
            let kinds = [
                "prior_fields = [\"user\"]\ndomain_fields = [\"item\"]\ntower_units = [6, 5]\ngate_hidden = 3",
                "epnet = false\nprior_fields = [\"item\"]\ntower_units = []\nstop_gradient = false\ngamma = 1.5",
                "ppnet = false\ntower_units = [4]\ngate_hidden = 0",
                "gate_site = \"output\"\nprior_tables = \"own\"\nprior_fields = [\"user\", \"item\"]\n\
                 domain_fields = [\"item\"]\ntower_units = [6, 5]\ngate_hidden = 0\nstop_gradient = false",
            ];
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\nscenario_dim = 2";
            return kinds.map(|kind| format!("name = \"pepnet\"\n{sizes}\n{kind}")).to_vec();
        }
        "adasparse" => {
            // Differences say nothing of a gradient that passes a step: golden cases alone have those.
            let kinds = [
                "form = \"scaling\"\npruner_units = [3]\nprune_input = true",
                "form = \"fusion\"\nsparsity_weight = 0.0\nalpha = 1.5\nepsilon = 0.9",
                "form = \"binarization\"\nstraight_through = false\ndomain_fields = [\"item\"]\n\
                 prune_input = true\nepsilon = 0.45\nsparsity_weight = 0.5",
            ];
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\nscenario_dim = 2";
            return kinds.map(|kind| format!("name = \"adasparse\"\n{sizes}\n{kind}")).to_vec();
        }
        "dcn" | "dcn_v2" | "deepfm" | "epnet_dcn" | "interactions" => return interacting(model),
        "dffm" => {
            let kinds = ["none", "inner", "bi", "vector", "matrix", "autoint"];
            let history = "history = \"history\"\ntarget = \"item\"\nattention_head_dim = 4\nattention_rank = 2\n\
                           scenario_dim = 5\ndomain_weights = \"lookup\"";
            let plain =
                "scenario_field = true\nscenario_dim = 2\ndomain_units = [4]\ndomain_weights = \"linear\"";
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\ninteraction_heads = 1\n\
                         interaction_head_dim = 3\ninteraction_scale = true\ndffi_units = [4]\nfusion_units = [3]";
            let both = kinds.iter().flat_map(|kind| [history, plain].map(|rest| (kind, rest)));
            return both
                .map(|(kind, rest)| format!("name = \"dffm\"\ninteraction = \"{kind}\"\n{sizes}\n{rest}"))
                .collect();
        }
        "mtms" => {
            let stages = ["represent", "ctcvr", "finetune"];
            let keys = |stage: &&str| {
                format!("name = \"mtms\"\nembedding_dim = 3\nstage = \"{stage}\"\ntower_units = [6, 5]")
            };
            let flat =
                "name = \"mtms\"\nembedding_dim = 3\nstage = \"finetune\"\ntower_units = []".to_owned();
            return stages.iter().map(keys).chain([flat]).collect();
        }
        "m2m" => {
            let sizes = "experts = 2\nexpert_units = [5]\nattention_heads = 1\nscenario_dim = 2\n\
                         scenario_units = [3]\ntask_dim = 2\ntask_units = [3]\nattention_meta = [4]";
            let kinds = [
                "ffn = 4\ntower_meta = [3]\nprofile_fields = [\"item\"]",
                "tower_layers = 2\nmeta_per_task = false",
            ];
            let keys = |kind: &&str| {
                format!("name = \"m2m\"\nembedding_dim = 3\nactivation = \"tanh\"\n{sizes}\n{kind}")
            };
            return kinds.iter().map(keys).collect();
        }
        other => panic!("name small sizes for {other}"),
    };
    let common = |sizes: &str, norm: &str| {
        format!("name = \"{model}\"\nembedding_dim = 3\nactivation = \"tanh\"\nnorm = \"{norm}\"\n{sizes}")
    };
    sizes.iter().flat_map(|s| ["none", "batch"].map(|norm| common(s, norm))).collect()
}

/// Models whose fields interact below or beside an MLP; one of each has a norm.
fn interacting(model: &str) -> Vec<String> {
    let sizes: &[&str] = match model {
        "dcn" => &[
            "cross_layers = 3\ndeep_units = [4]\nscenario_dim = 2",
            "cross_layers = 1\nstructure = \"stacked\"\ndeep_units = [5, 4]\nnorm = \"batch\"",
            "cross_layers = 2\nstructure = \"cross_only\"",
        ],
        "dcn_v2" => &[
            "cross_layers = 2\nstructure = \"stacked\"\ndeep_units = [4]\nscenario_dim = 2\nnorm = \"batch\"",
            "cross = \"low_rank\"\nrank = 2\ncross_layers = 2\nstructure = \"cross_only\"",
            "cross = \"mixture\"\nexperts = 2\nrank = 3\ncross_layers = 2\ninner = \"hard_tanh\"\ndeep_units = [4]",
            "cross = \"mixture\"\nexperts = 2\nrank = 2\ngate = \"constant\"\ncross_layers = 1\ndeep_units = [4]",
            "cross = \"mixture\"\nexperts = 3\nrank = 2\ngate = \"sigmoid\"\ngate_shared = false\ninner = \"none\"\n\
             deep_units = [4]",
        ],
        "deepfm" => &["deep_units = [6, 5]\nnorm = \"batch\"", "deep_units = []\ndense_field = true"],
        "epnet_dcn" => &[
            "scenario_fields = [\"item\"]\nstop_gradient = false\nscenario_to_dcn = true\nnorm = \"batch\"\n\
             cross_layers = 1",
            "granularity = \"field\"\ncross = \"matrix\"\ncross_layers = 2",
            "gate_features = false\ngamma = 1.5\ncross_layers = 2",
        ],
        _ => &[
            "kind = \"none\"\ndeep_units = [4]\nnorm = \"batch\"",
            "kind = \"inner\"\ndeep_units = [4]",
            "kind = \"bi\"\ndeep_units = [4]",
            "kind = \"vector\"\nlayers = 2\ndeep_units = [4]",
            "kind = \"matrix\"\nlayers = 2\ndeep_units = [4]",
            "kind = \"autoint\"\nlayers = 2\nheads = 2\nhead_dim = 2\nscale = true\ndeep_units = [4]",
        ],
    };
    let keys =
        |sizes: &&str| format!("name = \"{model}\"\nembedding_dim = 3\nactivation = \"tanh\"\n{sizes}");
    sizes.iter().map(keys).collect()
}

/// Rows of the largest table.
pub const IDS: usize = 5;

/// What a small configuration reads: fields, a list or two, numbers, scenarios and tasks.
pub fn inputs(model: &str) -> Inputs {
    let tasks = match model {
        model if ["causalint", "deepfm"].iter().any(|name| model.contains(name)) => 1,
        model if model.contains("mtms") || model.contains("escm2") => 2,
        _ => 3,
    };
    // It trains all tasks over all rows.
    let space = (!is_chain(model)).then_some(0);
    // The second is that of the scenarios of the first.
    let lists = if model.contains("history_scenarios") { 2 } else { 1 };
    let list = |name: &str, table| inputs::BagField {
        name: name.into(),
        table,
        pooling: Pooling::Mean,
        longest: Some(3),
    };
    let table = |name: &str| inputs::Table { name: name.into(), rows: IDS, dim: None };
    let task = |name: &str, weight, space| inputs::Task { weight, space, ..inputs::Task::binary(name) };
    Inputs {
        tables: vec![table("user"), table("item"), inputs::Table { rows: 4, ..table("scenario") }],
        fields: vec![
            inputs::Field { name: "user".into(), table: 0 },
            inputs::Field { name: "item".into(), table: 1 },
        ],
        bags: [list("history", 1), list("history_scenarios", 2)][..lists].to_vec(),
        dense: 2,
        dense_names: ["price", "weight"].map(str::to_owned).to_vec(),
        scenarios: 3,
        tasks: [task("click", 1.0, None), task("like", 0.5, None), task("buy", 2.0, space)][..tasks].to_vec(),
    }
}

/// The same with tasks of every kind, where the model has three, one that is not served, and scenarios that count unlike.
pub fn of_every_kind(model: &str) -> Inputs {
    let mut inputs = inputs(model);
    let kinds = [TaskKind::Binary, TaskKind::Regression, TaskKind::Poisson];
    // A chain of events knows probabilities alone.
    let several = inputs.tasks.len() == kinds.len() && !is_chain(model);
    for (task, kind) in inputs.tasks.iter_mut().zip(kinds) {
        task.scenario_weights = vec![2.0, 1.0, 0.5];
        if several {
            (task.kind, task.auxiliary) = (kind, kind == TaskKind::Regression);
        }
    }
    inputs
}

/// A batch of such inputs: ids from the unknown one on, lists of none to three, no row of scenario 1.
pub fn batch(rows: usize) -> Batch {
    let stream = Stream::new(3, 0, 0);
    let id = |r: usize, column: u64| stream.below(r as u64, column, IDS as u64) as u32;
    let mut history = Bag { offsets: vec![0], ids: Vec::new() };
    let mut scenarios = history.clone();
    for r in 0..rows {
        history.ids.extend((0..r % 4).map(|i| id(r, 3 + i as u64)));
        history.offsets.push(history.ids.len() as u32);
        scenarios.ids.extend((0..r % 4).map(|i| 1 + id(r, 8 + i as u64) % 3));
        scenarios.offsets.push(scenarios.ids.len() as u32);
    }
    Batch {
        rows,
        ids: (0..2).map(|field| (0..rows).map(|r| id(r, field)).collect()).collect(),
        bags: vec![history, scenarios],
        dense: (0..rows * 2).map(|i| stream.normal(i as u64, 20)).collect(),
        dense_width: 2,
        scenario: (0..rows as u64).map(|r| stream.below(r, 40, 2) as u32 * 2).collect(),
        labels: (0..3)
            .map(|t| (0..rows).map(|r| stream.uniform(r as u64, 30 + t).round()).collect())
            .collect(),
    }
}
