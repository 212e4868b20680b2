//! Tensor files: safetensors with a kind, a version and a checksum in the metadata.
//!
//! Metadata keys: `manygate.kind` (`model` or `checkpoint`), `manygate.version`, `manygate.checksum`, and whatever the
//! writer adds. A file that was cut short, altered, or written by something else is refused.

use manygate_core::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the format that is written and read.
pub const VERSION: &str = "1";
/// Metadata key of the kind of file.
pub const KIND: &str = "manygate.kind";
/// Metadata key of the format's version.
pub const VERSION_KEY: &str = "manygate.version";
/// Metadata key of the checksum.
pub const CHECKSUM: &str = "manygate.checksum";

/// Checksum of tensors, by name and contents, in any order.
pub fn checksum<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let one = |(name, data): (&str, &[u8])| {
        xxhash_rust::xxh3::xxh3_64_with_seed(data, xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    };
    format!("{:016x}", tensors.map(one).fold(0u64, u64::wrapping_add))
}

/// A tensor file in memory.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl TensorFile {
    /// Reads a file of this kind.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is of another kind or version.
    pub fn read(path: &Path, kind: &str) -> Result<TensorFile> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        TensorFile::parse(path, &bytes, kind)
    }

    /// Parses the contents of a file of this kind; `path` is for messages.
    ///
    /// # Errors
    /// When it is damaged, or of another kind or version.
    pub fn parse(path: &Path, bytes: &[u8], kind: &str) -> Result<TensorFile> {
        let damaged = |e: &dyn std::fmt::Display| {
            Error::format(path, format!("is damaged or not a safetensors file ({e})"))
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
        let metadata: BTreeMap<String, String> =
            header.metadata().clone().unwrap_or_default().into_iter().collect();
        match (metadata.get(KIND).map(String::as_str), metadata.get(VERSION_KEY).map(String::as_str)) {
            (Some(k), Some(VERSION)) if k == kind => {}
            (Some(k), Some(VERSION)) => {
                return Err(Error::format(path, format!("is a manygate {k}, a {kind} is needed")));
            }
            (Some(_), version) => {
                let version = version.unwrap_or("none");
                return Err(Error::format(
                    path,
                    format!("has format version {version}, this program reads {VERSION}"),
                ));
            }
            (None, _) => return Err(Error::format(path, "was not written by manygate")),
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
        let views = file.tensors();
        let actual = checksum(views.iter().map(|(name, view)| (name.as_str(), view.data())));
        if metadata.get(CHECKSUM) != Some(&actual) {
            return Err(Error::format(
                path,
                "does not match its checksum: it was cut short or altered; use a copy",
            ));
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in views {
            if view.dtype() != Dtype::F32 {
                return Err(Error::format(
                    path,
                    format!("tensor `{name}` is {:?}, F32 is needed", view.dtype()),
                ));
            }
            let values =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(TensorFile { path: path.to_path_buf(), metadata, tensors })
    }

    /// The metadata entry `key`.
    ///
    /// # Errors
    /// When it is missing.
    pub fn metadata(&self, key: &str) -> Result<&str> {
        let missing = || Error::format(&self.path, format!("lacks the metadata entry `{key}`"));
        self.metadata.get(key).map(String::as_str).ok_or_else(missing)
    }

    /// The tensor `name`, which must have this shape.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let Some((found, values)) = self.tensors.get(name) else {
            return Err(Error::format(
                &self.path,
                format!("lacks the tensor `{name}`, which the model needs"),
            ));
        };
        if found != shape {
            let message = format!("tensor `{name}` has shape {found:?}, the model needs {shape:?}");
            return Err(Error::format(&self.path, message));
        }
        Ok(values)
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (shape, _))| (name.as_str(), shape.as_slice()))
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;
    use std::collections::HashMap;

    fn file(kind: &str) -> Vec<u8> {
        let data: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let sum = checksum([("a", data.as_slice())].into_iter());
        let metadata = HashMap::from([
            (KIND.to_owned(), kind.to_owned()),
            (VERSION_KEY.to_owned(), VERSION.to_owned()),
            (CHECKSUM.to_owned(), sum),
        ]);
        let view = TensorView::new(Dtype::F32, vec![3], &data).unwrap();
        safetensors::serialize([("a", view)], Some(metadata)).unwrap()
    }

    fn message(bytes: &[u8]) -> String {
        TensorFile::parse(Path::new("m.safetensors"), bytes, "model").unwrap_err().to_string()
    }

    #[test]
    fn a_sound_file_is_read() {
        let read = TensorFile::parse(Path::new("m"), &file("model"), "model").unwrap();
        assert_eq!(read.tensor("a", &[3]).unwrap(), [1.0, 2.0, 3.0]);
        assert!(
            read.tensor("a", &[1, 3])
                .unwrap_err()
                .to_string()
                .contains("has shape [3], the model needs [1, 3]")
        );
        assert!(read.tensor("b", &[3]).unwrap_err().to_string().contains("lacks the tensor `b`"));
    }

    #[test]
    fn torn_altered_and_foreign_files_are_refused() {
        let good = file("model");
        for cut in [0, 4, 20, good.len() - 1] {
            assert!(message(&good[..cut]).contains("damaged"), "cut at {cut}");
        }
        let mut altered = good.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert!(message(&altered).contains("checksum"));
        assert!(message(&file("checkpoint")).contains("is a manygate checkpoint, a model is needed"));
        let data = [0u8; 4];
        let view = TensorView::new(Dtype::F32, vec![1], &data).unwrap();
        let foreign = safetensors::serialize([("a", view)], None).unwrap();
        assert!(message(&foreign).contains("not written by manygate"));
    }
}
