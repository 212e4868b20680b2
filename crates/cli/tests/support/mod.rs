//! A folder with a small data set and configuration, and the program run in it.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Rows of `train.csv` and `test.csv`.
pub(crate) const ROWS: (usize, usize) = (400, 150);

/// Two tasks, two scenarios, every kind of input that a short configuration can have.
pub(crate) const CONFIG: &str = r#"seed = 1

[data]
train = ["train.csv"]
test = ["test.csv"]
valid = { last_fraction = 0.2 }
scenario = "tab"
user = "user"

[model]
name = "mmoe"
embedding_dim = 4
experts = 2
expert_units = [16, 8]
tower_units = [8]

[train]
epochs = 2
batch_size = 64

[report]
floors = "floors.toml"

[[features]]
kind = "categorical"
columns = ["user", "item", "tab"]

[[features]]
kind = "categorical"
columns = ["slot"]
ids = 10

[[features]]
kind = "numeric"
columns = ["price"]

[[tasks]]
name = "click"

[[tasks]]
name = "buy"
"#;

/// The part of [`CONFIG`] that names the model.
pub(crate) const MODEL: &str =
    "name = \"mmoe\"\nembedding_dim = 4\nexperts = 2\nexpert_units = [16, 8]\ntower_units = [8]";

/// The part of [`CONFIG`] that names the second task.
pub(crate) const SECOND_TASK: &str = "\n[[tasks]]\nname = \"buy\"\n";

/// How the program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn new(output: Output) -> Finished {
        let finished = Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        };
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        finished
    }

    /// Checks that it ended well.
    #[track_caller]
    pub(crate) fn success(self) -> Finished {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Checks that it ended with `code`, said nothing on stdout, and all of `words` in an error on stderr.
    #[track_caller]
    pub(crate) fn failure(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        let error = self.stderr.split_once("error: ").expect("an error is announced").1;
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("stdout is JSON")
    }
}

/// A working directory of its own.
pub(crate) struct Lab {
    folder: TempDir,
}

impl Lab {
    /// With `config.toml`, `floors.toml`, `train.csv` and `test.csv`.
    pub(crate) fn new() -> Lab {
        let lab = Lab { folder: tempfile::tempdir().expect("a temporary folder") };
        lab.write("config.toml", CONFIG);
        lab.write("floors.toml", "[LR.click]\nall = 0.5\n");
        lab.write("train.csv", csv(ROWS.0, 1));
        lab.write("test.csv", csv(ROWS.1, 2));
        lab
    }

    /// The same with a finished run in `run`.
    pub(crate) fn trained() -> Lab {
        let lab = Lab::new();
        lab.run(&["train", "config.toml", "--out", "run"]).success();
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).expect("a file is written");
    }

    /// Writes `config.toml` with `old` replaced.
    pub(crate) fn configure(&self, old: &str, new: &str) {
        self.configure_all(&[(old, new)]);
    }

    /// Writes `config.toml` with each first text replaced by the second.
    pub(crate) fn configure_all(&self, changes: &[(&str, &str)]) {
        let mut config = CONFIG.to_owned();
        for (old, new) in changes {
            assert!(config.contains(old), "`{old}` is not in the configuration");
            config = config.replace(old, new);
        }
        self.write("config.toml", config);
    }

    /// Writes `train.csv` with the value of `column` replaced in its row `row`, from 1: line `row + 1` of the file.
    pub(crate) fn spoil(&self, row: usize, column: &str, value: &str) {
        let text = csv(ROWS.0, 1);
        let place = text.lines().next().and_then(|header| header.split(',').position(|name| name == column));
        let place = place.expect("the column exists");
        let lines: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(number, line)| {
                let mut cells: Vec<&str> = line.split(',').collect();
                if number == row {
                    cells[place] = value;
                }
                cells.join(",") + "\n"
            })
            .collect();
        self.write("train.csv", lines.concat());
    }

    /// Makes a pipe, and its folder: a program that opens it waits for the other end, which nobody opens.
    #[cfg(unix)]
    pub(crate) fn pipe(&self, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    }

    /// Lets a new run in the folder `run` train and not end, however late it is killed: where it would write its
    /// metrics, after the last checkpoint, is a pipe.
    #[cfg(unix)]
    pub(crate) fn hold(&self, run: &str) {
        self.pipe(&format!("{run}/metrics.json.tmp"));
    }

    /// Takes that pipe away.
    #[cfg(unix)]
    pub(crate) fn release(&self, run: &str) {
        fs::remove_file(self.path(run).join("metrics.json.tmp")).expect("the run is held");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn read_json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).expect("the file is JSON")
    }

    /// Checks that two runs left the same, that of nothing but a longer time apart.
    #[track_caller]
    pub(crate) fn assert_same_run(&self, run: &str, whole: &str) {
        for file in ["config.toml", "model.safetensors", "checkpoint.safetensors"] {
            let same = self.read(&format!("{run}/{file}")) == self.read(&format!("{whole}/{file}"));
            assert!(same, "{file} of {run} differs");
        }
        let metrics = |run: &str| {
            let mut metrics = self.read_json(&format!("{run}/metrics.json"));
            metrics["seconds"].take();
            metrics
        };
        assert_eq!(metrics(run), metrics(whole), "{run}");
        assert_eq!(entries(&self.path(run)), entries(&self.path(whole)), "{run}");
    }

    /// The program, to be run here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_manygate"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("MANYGATE_ISA");
        command
    }

    /// Runs the program to its end. It must not panic, whatever it is given.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        Finished::new(self.command(arguments).output().expect("the program starts"))
    }
}

/// Names of the entries of a folder, in order.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Rows in which both tasks depend on user, item and price. Line `r + 1` is row `r`.
pub(crate) fn csv(rows: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % n
    };
    let mut text = String::from("user,item,tab,slot,price,click,buy\n");
    for _ in 0..rows {
        let (user, item, tab, slot, price) = (below(20), below(30), below(2), below(10), below(1000));
        let score = (user * 7 + item * 3 + tab * 20) % 60 + price / 50;
        let click = u64::from(score + below(20) > 50);
        let buy = click * u64::from(below(3) == 0);
        text += &format!("u{user},i{item},{tab},{slot},{}.{},{click},{buy}\n", price / 10, price % 10);
    }
    text
}
