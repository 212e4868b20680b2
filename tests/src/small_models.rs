//! Small configurations of every architecture, with each of its options, for tests of whole models.

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
        // Norms over the few rows of a scenario lose digits with every layer.
        "single_scenario" => vec!["bottom_units = [6]\ntower_units = [4]"],
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
            ];
            let sizes = "embedding_dim = 3\nactivation = \"tanh\"\nunits = [6, 5]\nadapter_width = 3\nrank = 2\n\
                         epsilon = 0.1";
            return kinds.iter().map(|kind| format!("name = \"hamur\"\n{sizes}\n{kind}")).collect();
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
        "causalint" => {
            let metas = ["none", "representation", "parameter"];
            let sizes = "units = [6, 5]\ntransfer = 3\ninner_rate = 2.0\nconflict_weight = 0.8";
            let keys =
                |meta: &&str| format!("name = \"causalint\"\nembedding_dim = 3\nmeta = \"{meta}\"\n{sizes}");
            return metas.iter().map(keys).collect();
        }
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
