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
