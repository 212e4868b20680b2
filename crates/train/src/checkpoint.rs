//! Writes models and checkpoints, and reads the latter back.

use crate::learner::Learner;
use crate::progress::Progress;
use manygate_core::{Error, Result, write_atomically};
use manygate_graph::Parameters;
use manygate_runtime::TensorFile;
use manygate_runtime::tensors::{CHECKSUM, KIND, VERSION, VERSION_KEY, checksum};
use serde_json::{Map, Value, json};
use std::path::Path;

/// File of the latest checkpoint in a run folder.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// Metadata key of the run's progress, as JSON.
const PROGRESS: &str = "manygate.progress";
/// Metadata key of the resolved configuration.
const CONFIG: &str = "manygate.config";
/// Metadata key of what a balancing method has learnt, as JSON.
const BALANCE: &str = "manygate.balance";
const FIRST: &str = "optimizer.first.";
const SECOND: &str = "optimizer.second.";
const ROWS: &str = "optimizer.rows.";

/// Named tensors to be written.
#[derive(Default)]
struct Tensors {
    all: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    fn push(&mut self, name: String, shape: &[usize], values: &[f32]) {
        self.all.push((name, shape.to_vec(), bytes_of(values)));
    }

    fn push_set(&mut self, prefix: &str, layout_of: &Parameters, values: &[f32]) {
        for (block, range) in layout_of.layout().blocks() {
            self.push(format!("{prefix}{}", block.name), &block.shape, &values[range]);
        }
    }

    fn push_weights(&mut self, learner: &Learner) {
        self.push_set("", &learner.params, &learner.params.values);
        self.push_set("", &learner.state, &learner.state.values);
        for table in &learner.tables.0 {
            let spec = table.spec();
            self.push(spec.name.clone(), &[spec.rows, spec.dim], &table.weights());
        }
    }

    fn write(self, path: &Path, kind: &str, extra: Vec<(&str, String)>) -> Result<()> {
        let mut metadata = vec![(KIND, kind.to_owned()), (VERSION_KEY, VERSION.to_owned())];
        metadata.extend(extra);
        let sum = checksum(
            self.all.iter().map(|(name, shape, data)| (name.as_str(), shape.as_slice(), data.as_slice())),
            metadata.iter().map(|(key, value)| (*key, value.as_str())),
        );
        metadata.push((CHECKSUM, sum));
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        write_atomically(path, &self.serialise(metadata))
    }

    /// The safetensors format: the length of a JSON header, the header, the values. Written here because the crate
    /// that reads it keeps metadata in a hash map, whose order differs from run to run: equal weights are to be equal
    /// bytes.
    fn serialise(self, metadata: Map<String, Value>) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), Value::Object(metadata));
        let mut end = 0;
        for (name, shape, data) in &self.all {
            let start = end;
            end += data.len();
            header
                .insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        // Spaces, so that values start at a multiple of 8.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + end);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        self.all.iter().for_each(|(_, _, data)| bytes.extend(data));
        bytes
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes the weights alone: what inference reads. The bytes depend on the weights only.
///
/// # Errors
/// When the file system refuses.
pub fn write_model(path: &Path, learner: &Learner) -> Result<()> {
    let mut tensors = Tensors::default();
    tensors.push_weights(learner);
    tensors.write(path, "model", Vec::new())
}

/// The same with the tensors that `replaced` does not name as they are in the model file `before`.
///
/// # Errors
/// When one of these is missing there or has another shape, or the file system refuses.
pub fn write_model_in_part(
    path: &Path,
    learner: &Learner,
    before: &TensorFile,
    replaced: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut tensors = Tensors::default();
    tensors.push_weights(learner);
    for (name, shape, bytes) in tensors.all.iter_mut().filter(|(name, ..)| !replaced(name)) {
        *bytes = bytes_of(before.tensor(name, shape)?);
    }
    tensors.write(path, "model", Vec::new())
}

/// Writes everything that a run needs to go on: weights, optimiser state, position and history.
///
/// # Errors
/// When the file system refuses.
pub fn write_checkpoint(path: &Path, learner: &Learner, progress: &Progress, config: &str) -> Result<()> {
    let mut tensors = Tensors::default();
    tensors.push_weights(learner);
    tensors.push_set(FIRST, &learner.params, &learner.dense.first);
    tensors.push_set(SECOND, &learner.params, &learner.dense.second);
    for table in learner.tables.0.iter().filter(|t| t.state_width() > 0) {
        let name = format!("{ROWS}{}", table.spec().name);
        tensors.push(name, &[table.spec().rows, table.state_width()], &table.state());
    }
    let progress = serde_json::to_string(progress)
        .map_err(|e| Error::format(path, format!("progress cannot be serialised: {e}")))?;
    let learnt = learner.balancer().map(|b| b.state()).unwrap_or_default();
    let learnt = serde_json::to_string(&learnt)
        .map_err(|e| Error::format(path, format!("what was learnt of weights cannot be serialised: {e}")))?;
    let extra = vec![(PROGRESS, progress), (BALANCE, learnt), (CONFIG, config.to_owned())];
    tensors.write(path, "checkpoint", extra)
}

/// A checkpoint that was read, to be restored.
pub struct Checkpoint {
    file: TensorFile,
    /// Position and history of the run.
    pub progress: Progress,
}

impl Checkpoint {
    /// Reads a checkpoint of the run with this resolved configuration.
    ///
    /// # Errors
    /// When the file is damaged, or belongs to a run with another configuration.
    pub fn read(path: &Path, config: &str) -> Result<Checkpoint> {
        let file = TensorFile::read(path, "checkpoint")?;
        if file.metadata(CONFIG)? != config {
            let message =
                "belongs to a run with another configuration; resume with the run's own config.toml and seed";
            return Err(Error::format(path, message));
        }
        let progress: Progress = serde_json::from_str(file.metadata(PROGRESS)?)
            .map_err(|e| Error::format(path, format!("its progress cannot be read: {e}")))?;
        Ok(Checkpoint { file, progress })
    }

    /// Gives everything back to a learner of the stage that was under way.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn restore(&self, learner: &mut Learner) -> Result<()> {
        let file = &self.file;
        let fill = |prefix: &str, layout_of: &Parameters, values: &mut [f32]| -> Result<()> {
            for (block, range) in layout_of.layout().blocks() {
                values[range].copy_from_slice(file.tensor(&format!("{prefix}{}", block.name), &block.shape)?);
            }
            Ok(())
        };
        for set in [&mut learner.params, &mut learner.state] {
            let layout = set.clone();
            fill("", &layout, &mut set.values)?;
        }
        fill(FIRST, &learner.params, &mut learner.dense.first)?;
        fill(SECOND, &learner.params, &mut learner.dense.second)?;
        for table in &mut learner.tables.0 {
            let (name, rows, dim) = (table.spec().name.clone(), table.spec().rows, table.spec().dim);
            table.set_weights(file.tensor(&name, &[rows, dim])?)?;
            if table.state_width() > 0 {
                let state = file.tensor(&format!("{ROWS}{name}"), &[rows, table.state_width()])?;
                table.set_state(state)?;
            }
        }
        if let Some(balancer) = learner.balancer_mut() {
            let learnt: Vec<f64> = serde_json::from_str(file.metadata(BALANCE)?)
                .map_err(|e| Error::format(file.path(), format!("its balance cannot be read: {e}")))?;
            balancer.restore(&learnt)?;
        }
        learner.step = self.progress.stage_step;
        learner.earlier_steps = self.progress.step - self.progress.stage_step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn equal_tensors_are_equal_bytes_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let mut tensors = Tensors::default();
            tensors.push("b.weight".into(), &[2, 1], &[1.5, -0.0]);
            tensors.push("a \"quoted\" name".into(), &[1], &[f32::MIN_POSITIVE]);
            let path = folder.path().join(name);
            tensors.write(&path, "model", vec![("more", "text".to_owned())]).unwrap();
            path
        };
        let (one, two) = (write("one"), write("two"));
        assert_eq!(fs::read(&one).unwrap(), fs::read(two).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file is left");
        let file = TensorFile::read(&one, "model").unwrap();
        assert_eq!(file.metadata("more").unwrap(), "text");
        assert_eq!(file.tensor("b.weight", &[2, 1]).unwrap(), [1.5, 0.0]);
        assert_eq!(file.tensor("a \"quoted\" name", &[1]).unwrap(), [f32::MIN_POSITIVE]);
    }
}
