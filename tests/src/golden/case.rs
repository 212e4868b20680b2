//! The two files of a case, read but not yet understood.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Values of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers.
    F32(Vec<f32>),
    /// Ids and counters.
    I64(Vec<i64>),
}

/// A tensor of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Values,
}

/// A golden case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// `config.json`.
    pub config: serde_json::Map<String, Value>,
    /// `case.safetensors`, by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Case {
    /// Reads the case in `folder`.
    ///
    /// # Errors
    /// When a file is missing, damaged, or holds a tensor that is neither f32 nor i64.
    pub fn read(folder: &Path) -> Result<Case, String> {
        let bytes = |name: &str| fs::read(folder.join(name)).map_err(|e| format!("{name}: {e}"));
        let config =
            serde_json::from_slice(&bytes("config.json")?).map_err(|e| format!("config.json: {e}"))?;
        let tensors = tensors(&bytes("case.safetensors")?).map_err(|e| format!("case.safetensors: {e}"))?;
        Ok(Case { config, tensors })
    }
}

fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let values = match view.dtype() {
            Dtype::F32 => Values::F32(numbers(view.data(), f32::from_le_bytes)),
            Dtype::I64 => Values::I64(numbers(view.data(), i64::from_le_bytes)),
            other => return Err(format!("{name} is {other:?}; only F32 and I64 are read")),
        };
        tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

fn numbers<T, const BYTES: usize>(data: &[u8], from: fn([u8; BYTES]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|&chunk| from(chunk)).collect()
}
