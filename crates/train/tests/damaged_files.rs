//! The files that training reads beside data, with any bytes in them: used, or refused with a message that names the file
//! or the key; never a panic, nor memory for what a file only claims to hold.

use manygate_core::Result;
use manygate_train::agreement::Reference;
use manygate_train::checkpoint::Checkpoint;
use manygate_train::report::Floors;
use manygate_train::results::{METRICS_FILE, label_means};
use manygate_train::{Config, RunOptions, Silent, train};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CONFIG: &str = include_str!("../../../configs/quickstart.toml");
const STAGED: &str = include_str!("../../../configs/mtms.toml");
const FLOORS: &str = include_str!("../../../data/quickstart/floors.toml");
const REFERENCE: &str = include_str!("../../../configs/protocol/reference.json");
const METRICS: &str = r#"{"version": 1, "label_means": {"click": 0.25, "buy": 0.01}, "seed": 1}"#;

/// What takes the place of a value: of another type, out of every range, or no value at all.
const ODD: [&str; 16] = [
    "0",
    "-1",
    "1",
    "65536",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "nan",
    "inf",
    "true",
    "\"\"",
    "\"*\"",
    "[]",
    "[[]]",
    "{}",
    "{ x = [1] }",
];

/// A text with some of its lines left out, doubled, or given another value.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let change = (any::<Index>(), 0..3usize, select(&ODD[..]));
    vec(change, 1..4).prop_map(move |changes| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (at, what, value) in changes {
            let at = at.index(lines.len());
            let line = lines[at].clone();
            match (what, line.find(['=', ':'])) {
                (0, _) => lines[at].clear(),
                (1, _) => lines.insert(at, line),
                (_, Some(sign)) => lines[at] = format!("{} {value}", &line[..=sign]),
                (_, None) => lines[at] += value,
            }
        }
        lines.join("\n")
    })
}

/// Reads a file of these bytes.
fn read<T>(name: &str, bytes: &[u8], reader: impl Fn(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    reader(&path)
}

fn load(bytes: &[u8]) -> Result<Config> {
    read("config.toml", bytes, |path| Config::load(path, &[]))
}

/// Floors of either form.
fn floors(bytes: &[u8]) -> [Result<Floors>; 2] {
    ["floors.toml", "floors.json"].map(|name| read(name, bytes, |path| Floors::load(path)))
}

fn reference(bytes: &[u8]) -> Result<Reference> {
    read("reference.json", bytes, Reference::load)
}

fn rates(bytes: &[u8]) -> Result<()> {
    read(METRICS_FILE, bytes, |path| label_means(path.parent().unwrap())).map(drop)
}

/// The checkpoint of a short run, and the configuration that belongs to it.
static CHECKPOINT: LazyLock<(Vec<u8>, String)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("train.csv");
    fs::write(&data, "user,click\nu1,0\nu2,1\nu1,1\nu2,0\n").unwrap();
    let text = format!(
        "features = [{{ kind = \"categorical\", columns = [\"user\"] }}]\ntasks = [{{ name = \"click\" }}]\n\
         [data]\ntrain = [{data:?}]\nvalid = {{ last_fraction = 0.5 }}\n[train]\nepochs = 1\n\
         [model]\nname = \"shared_bottom\"\nembedding_dim = 2\nbottom_units = [2]\ntower_units = []\n"
    );
    let config = load(text.as_bytes()).unwrap();
    let run = folder.path().join("run");
    train(&config, &run, RunOptions::default(), &mut Silent).unwrap();
    (fs::read(run.join("checkpoint.safetensors")).unwrap(), config.resolved().unwrap())
});

fn checkpoint(bytes: &[u8]) -> Result<Checkpoint> {
    read("checkpoint.safetensors", bytes, |path| Checkpoint::read(path, &CHECKPOINT.1))
}

#[test]
fn nothing_deep_or_empty_is_too_much() {
    assert!(load(b"").is_err());
    for deep in ["[", "{", "a = [", "a = {a="] {
        let text = deep.repeat(100_000);
        assert!(load(text.as_bytes()).is_err());
        assert!(floors(text.as_bytes()).iter().all(Result::is_err));
        assert!(reference(text.as_bytes()).is_err());
        assert!(rates(text.as_bytes()).is_err());
    }
    let told = load(b"seed = \xff").unwrap_err().to_string();
    assert!(told.contains("config.toml") && told.contains("UTF-8"), "{told}");
}

#[test]
fn a_checkpoint_is_read_whole_or_not_at_all() {
    let (whole, _) = &*CHECKPOINT;
    assert_eq!(checkpoint(whole).unwrap().progress.step, 1);
    for cut in (0..whole.len()).step_by(7) {
        assert!(checkpoint(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_used_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = load(&bytes);
        let _ = checkpoint(&bytes);
        let _ = floors(&bytes);
        let _ = reference(&bytes);
        let _ = rates(&bytes);
    }

    #[test]
    fn a_configuration_with_odd_values_is_used_or_refused(text in prop_oneof![mutated(CONFIG), mutated(STAGED)]) {
        if let Ok(config) = load(text.as_bytes()) {
            // What was understood can be written down and understood again.
            let resolved = config.resolved().unwrap();
            let again = load(resolved.as_bytes());
            prop_assert!(again.is_ok(), "{}\n{resolved}", again.unwrap_err());
            prop_assert_eq!(again.unwrap().resolved().unwrap(), resolved);
        }
    }

    #[test]
    fn figures_with_odd_values_are_used_or_refused(
        baselines in mutated(FLOORS),
        figures in mutated(REFERENCE),
        metrics in mutated(METRICS),
    ) {
        let _ = floors(baselines.as_bytes());
        if let Ok(reference) = reference(figures.as_bytes()) {
            let _ = reference.of(&load(CONFIG.as_bytes()).unwrap());
        }
        let _ = rates(metrics.as_bytes());
    }

    #[test]
    fn a_checkpoint_with_other_bytes_is_refused(changes in vec((any::<Index>(), any::<u8>()), 1..5)) {
        let (whole, _) = &*CHECKPOINT;
        let mut spoilt = whole.clone();
        for (at, byte) in changes {
            let at = at.index(spoilt.len());
            spoilt[at] = byte;
        }
        if let Ok(read) = checkpoint(&spoilt) {
            prop_assert_eq!(read.progress, checkpoint(whole).unwrap().progress);
        }
    }
}
