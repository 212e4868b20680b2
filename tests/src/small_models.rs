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
        ],
        "esmm" => vec!["tower_units = [6, 4]", "tower_units = []\nconditional = [\"a\", \"b\", \"c\"]"],
        "shared_bottom" | "single_task" => {
            vec!["bottom_units = [6, 5]\ntower_units = [4]", "bottom_units = [6]\ntower_units = []"]
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
