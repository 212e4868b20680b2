//! The same configuration and seed give the same bytes: whatever the threads, and however often the run was killed.

mod support;

use manygate_tests::on_all_cores;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Lab, MODEL, SECOND_TASK, csv};

/// A model, and the tasks that it leaves out.
type Job = (&'static str, &'static str);

/// Models with state, an order of rows, or values between phases beside the plain one.
const MODELS: &[Job] = &[
    (MODEL, ""),
    (OPTIMIZERS, ""),
    (STAR, ""),
    (M2M, ""),
    ("name = \"dffm\"\nembedding_dim = 4\ndffi_units = [8]\nfusion_units = [4]", ""),
    ("name = \"dcn\"\nembedding_dim = 4\ndeep_units = [8]\nscenario_dim = 2", ""),
    ("name = \"dcn_v2\"\nembedding_dim = 4\ncross = \"mixture\"\nrank = 4\ndeep_units = [8]", ""),
    ("name = \"deepfm\"\nembedding_dim = 4\ndeep_units = [8]", SECOND_TASK),
    ("name = \"autoint\"\nembedding_dim = 4\nlayers = 2\nhead_dim = 4\ndeep_units = [8]", ""),
    ("name = \"epnet_dcn\"\nembedding_dim = 4\ngate_hidden = 8\ndeep_units = [8]", ""),
    (MTMS, ""),
    (ATTENTION, ""),
    (SARNET, ""),
    ("name = \"apg\"\nembedding_dim = 4\nunits = [16, 8]\ngenerate_bias = true", ""),
    ("name = \"single_scenario\"\nembedding_dim = 4\nbottom_units = [16, 8]\ntower_units = [8]", ""),
    ("name = \"hamur\"\nembedding_dim = 4\nunits = [16, 8]\nrank = 4\nadapter_width = 6", ""),
    ("name = \"hamur\"\nembedding_dim = 4\nunits = [16, 8]\nrank = 4\ncondition = \"scenario\"", ""),
    // Whose tasks take the weights of different validations.
    ("name = \"single_task\"\nembedding_dim = 4\nbottom_units = [16, 8]\ntower_units = [8]", ""),
    ("name = \"ple\"\nembedding_dim = 4\nexpert_units = [16, 8]\ntower_units = [8]", ""),
    ("name = \"esmm\"\nembedding_dim = 4\ntower_units = [16, 8]", ""),
    (AITM, ""),
    (ESCM2, ""),
    ("name = \"cross_stitch\"\nembedding_dim = 4\nunits = [16, 8]\ntower_units = [8]", ""),
    ("name = \"stem\"\nembedding_dim = 4\nexpert_units = [16, 8]\ngate_units = [4]\ntower_units = [8]", ""),
    ("name = \"taml\"\nembedding_dim = 4\nlearners = 2\nexpert_units = [16, 8]\ntower_units = [8]", ""),
    (BALANCED, ""),
    (HINET, ""),
    (M3OE, ""),
    // With state that moves by several passes over a batch.
    ("name = \"adaptdhm\"\nembedding_dim = 4\nunits = [16, 8]", ""),
    ("name = \"lhuc\"\nembedding_dim = 4\nunits = [16, 8]\ntower_units = [8]\ndropout = 0.2", ""),
    (PEPNET, ""),
    // Whose regulariser is a function of the whole batch.
    ("name = \"adasparse\"\nembedding_dim = 4\nunits = [16, 8]\nsparsity_weight = 0.5", ""),
    ("name = \"causalint\"\nembedding_dim = 4\nunits = [16, 8]\ntransfer = 3", SECOND_TASK),
];

/// With dropout, whose rows are in another order than the caller's, with a cadence, which must go on where a killed run
/// stopped, and a table without state.
const STAR: &str = r#"name = "star"
embedding_dim = 4
units = [16, 8]
auxiliary_units = [8]
dropout = 0.2

[[optimizer.group]]
names = ["star.click.*", "embedding.user.weight"]
method = "sgd"
rate = 0.01
every = 3"#;

/// A method each for experts, gates, towers and two tables, whose gradients are clipped together; rates rise and fall.
const OPTIMIZERS: &str = r#"name = "mmoe"
embedding_dim = 4
experts = 2
expert_units = [16, 8]
tower_units = [8]

[optimizer]
clip_norm = 0.05
clip_tables = true

[optimizer.schedule]
kind = "cosine"
warmup_steps = 3
final_fraction = 0.1

[optimizer.dense]
method = "momentum"
rate = 0.05
nesterov = true

[optimizer.tables]
method = "ftrl"
l1 = 1e-5

[[optimizer.group]]
names = ["gates.*"]
method = "adamw"

[[optimizer.group]]
names = ["towers.*", "embedding.user.weight"]
method = "adagrad"
every = 2
"#;

const HINET: &str = "name = \"hinet\"\nembedding_dim = 4\nsub_units = [8]\nexpert_units = [16, 8]\ntower_units = [8]\nscenario_dim = 4";

const M3OE: &str = "name = \"m3oe\"\nembedding_dim = 4\nstar_width = 16\nwidth = 8\nagnostic_units = [16]\nexpert_width = 8\ntower_units = [8]";
/// With statistics of the batch over its rows and over the ids of a sequence: an item's name in pieces.
const ATTENTION: &str = r#"name = "din"
embedding_dim = 4
history = "item"
target = "user"
unit_units = [8]
unit_activation = "dice"
units = [16, 8]

[[features]]
kind = "sequence"
columns = ["item"]
separator = "1"
max_length = 4"#;

/// A behaviour and its scenario, which are the row's own, and weights by row.
const SARNET: &str = r#"name = "sarnet"
embedding_dim = 4
scenario_dim = 4
history = "item"
history_scenarios = "tab"
target = "item"
attention_units = [8]
shared_experts = 2
expert_units = [8]
fairness = "slot"
bias_units = [4]
dropout = 0.1

[[features]]
kind = "sequence"
columns = ["item"]
separator = "|"
table = "item"
max_length = 2

[[features]]
kind = "sequence"
columns = ["tab"]
separator = "|"
table = "tab"
max_length = 2

[[features]]
kind = "numeric"
columns = ["slot"]
transform = "raw""#;

const M2M: &str =
    "name = \"m2m\"\nembedding_dim = 4\nexperts = 2\nexpert_units = [8]\nprofile_fields = [\"user\"]";

/// With tables that gates alone look up.
const PEPNET: &str = r#"name = "pepnet"
embedding_dim = 4
tower_units = [16, 8]
gate_hidden = 8
prior_fields = ["user"]
prior_tables = "own"
"#;
const AITM: &str = "name = \"aitm\"\nembedding_dim = 4\nbottom_units = [16, 8]";

const ESCM2: &str =
    "name = \"escm2\"\nembedding_dim = 4\nexperts = 2\nexpert_units = [16, 8]\ntower_units = [8]";

/// With dropout and a method that learns weights, and looks at each batch a second time.
const BALANCED: &str = "name = \"mmoe\"\nembedding_dim = 4\nexperts = 2\nexpert_units = [16, 8]\ntower_units = [8]\ndropout = 0.3\ngate_dropout = 0.2\n\n[balance]\nmethod = \"famo\"\n";

/// The first ends within an epoch.
const STAGES: &str = "\n\n[[stage]]\nname = \"first\"\nsteps = 20\n\n[[stage]]\nname = \"second\"\n";

/// In stages, of which the first ends within an epoch and the second is the one to be killed in.
const MTMS: &str = r#"name = "mtms"
embedding_dim = 4
tower_units = [8]
dropout = 0.1

[[stage]]
name = "represent"
steps = 20
model = { stage = "represent" }

[[stage]]
name = "ctcvr"
model = { stage = "ctcvr" }
freeze = ["embed.0.*"]

[stage.optimizer.tables]
method = "rowwise_adagrad"

[[stage]]
name = "finetune"
steps = 100
patience = 5
"#;

/// Long enough to be killed between two checkpoints.
fn long_job((model, left_out): Job) -> Lab {
    let lab = Lab::new();
    lab.write("train.csv", csv(3000, 3));
    let long = ("epochs = 2\nbatch_size = 64", "epochs = 20\nbatch_size = 32\nselect = \"logloss\"");
    // In two stages, so that it is killed in the middle of one; the plain model has none.
    let staged = if model == MODEL || model.contains("[[stage]]") { "" } else { STAGES };
    lab.configure_all(&[(MODEL, &format!("{model}{staged}")), (left_out, ""), long]);
    lab
}

#[test]
fn threads_do_not_change_a_byte() {
    on_all_cores(MODELS.to_vec(), |&job| train_on_threads(job));
}

fn train_on_threads((model, left_out): Job) {
    let lab = Lab::new();
    lab.write("train.csv", csv(3000, 3));
    // Batches of several lanes, the last one short.
    lab.configure_all(&[(MODEL, model), (left_out, ""), ("batch_size = 64", "batch_size = 1000")]);
    for threads in ["1", "2", "5"] {
        let out = format!("run{threads}");
        lab.run(&["train", "config.toml", "--out", &out, "--threads", threads]).success();
        for file in ["model.safetensors", "config.toml"] {
            assert!(
                lab.read(&format!("{out}/{file}")) == lab.read(&format!("run1/{file}")),
                "{threads} threads: {file}"
            );
        }
        let test = |run: &str| lab.read_json(&format!("{run}/metrics.json"))["test"].clone();
        assert_eq!(test(&out), test("run1"), "{threads} threads");
    }
}

#[cfg(unix)]
#[test]
fn a_run_killed_twice_and_resumed_equals_an_uninterrupted_one() {
    on_all_cores(MODELS.to_vec(), |&job| kill_and_resume(job));
}

#[cfg(unix)]
fn kill_and_resume(job: Job) {
    let lab = long_job(job);
    lab.run(&["train", "config.toml", "--out", "whole", "--threads", "2"]).success();

    lab.hold("killed");
    let mut seen = None;
    for arguments in [&["--threads", "1"][..], &["--threads", "2", "--resume"]] {
        let mut command = lab.command(&[&["train", "config.toml", "--out", "killed"], arguments].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begin = Instant::now();
        // Until a checkpoint of this life is there.
        while checkpoint(&lab).is_none() || checkpoint(&lab) == seen {
            assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint appears");
            assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        assert!(child.wait().unwrap().code().is_none(), "the run ended by itself");
        seen = checkpoint(&lab);
    }
    lab.release("killed");

    let resumed =
        lab.run(&["train", "config.toml", "--out", "killed", "--resume", "--threads", "2"]).success();
    assert!(resumed.stderr.contains("going on after step"), "{}", resumed.stderr);
    lab.assert_same_run("killed", "whole");
}

/// The first model is written before the first checkpoint: a run that ends between the two can be resumed as well.
#[test]
fn a_run_that_ended_before_its_first_checkpoint_starts_again() {
    let lab = Lab::new();
    lab.run(&["train", "config.toml", "--out", "whole"]).success();
    lab.run(&["train", "config.toml", "--out", "ended"]).success();
    std::fs::remove_file(lab.path("ended/checkpoint.safetensors")).unwrap();
    lab.write("ended/model.safetensors", "the model of an earlier validation");

    let other = ["train", "config.toml", "--out", "ended", "--resume", "--seed", "9"];
    lab.run(&other).failure(1, &["ended/config.toml", "another configuration"]);
    let again = lab.run(&["train", "config.toml", "--out", "ended", "--resume"]).success();
    assert!(again.stderr.contains("starting from the beginning"), "{}", again.stderr);
    for file in ["model.safetensors", "checkpoint.safetensors"] {
        assert!(lab.read(&format!("ended/{file}")) == lab.read(&format!("whole/{file}")), "{file} differs");
    }
}

/// When the checkpoint of the run that is killed was last replaced.
fn checkpoint(lab: &Lab) -> Option<std::time::SystemTime> {
    lab.path("killed/checkpoint.safetensors").metadata().and_then(|m| m.modified()).ok()
}
