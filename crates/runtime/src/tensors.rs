//! Tensor files: safetensors with a kind, a version and a checksum in the metadata.
//!
//! Metadata keys: `manygate.kind` (`model` or `checkpoint`), `manygate.version`, `manygate.checksum`, and whatever the
//! writer adds. A file that was cut short, altered, or written by something else is refused.

use manygate_core::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The version of the format that is written and read.
pub const VERSION: &str = "1";
/// Metadata key of the kind of file.
pub const KIND: &str = "manygate.kind";
/// Metadata key of the format's version.
pub const VERSION_KEY: &str = "manygate.version";
/// Metadata key of the checksum.
pub const CHECKSUM: &str = "manygate.checksum";

/// Checksum of tensors, by name, shape and contents, and of metadata (without the checksum's own entry), in any order.
pub fn checksum<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>,
    metadata: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let of_tensor = |(name, shape, data): (&str, &[usize], &[u8])| {
        let key = format!("tensor {name} {shape:?}");
        xxh3_64_with_seed(data, xxh3_64(key.as_bytes()))
    };
    let of_entry = |(key, value): (&str, &str)| xxh3_64_with_seed(value.as_bytes(), xxh3_64(key.as_bytes()));
    let sums = tensors.map(of_tensor).chain(metadata.map(of_entry));
    format!("{:016x}", sums.fold(0u64, u64::wrapping_add))
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
        let actual = checksum(
            views.iter().map(|(name, view)| (name.as_str(), view.shape(), view.data())),
            metadata
                .iter()
                .filter(|(key, _)| *key != CHECKSUM)
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
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
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use safetensors::tensor::TensorView;
    use std::collections::HashMap;

    fn file(kind: &str) -> Vec<u8> {
        let data: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let entries = [(KIND, kind), (VERSION_KEY, VERSION), ("progress", "step 12 of 30")];
        let sum = checksum([("a", &[3][..], data.as_slice())].into_iter(), entries.into_iter());
        let entries = entries.into_iter().chain([(CHECKSUM, sum.as_str())]);
        let metadata: HashMap<String, String> =
            entries.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
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

    /// What a reader sees of a file.
    fn contents(file: &TensorFile) -> impl PartialEq + std::fmt::Debug + use<> {
        (file.metadata.clone(), file.tensors.clone())
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let good = file("model");
        let read = contents(&TensorFile::parse(Path::new("m"), &good, "model").unwrap());
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(file) = TensorFile::parse(Path::new("m"), &flipped, "model") {
                assert_eq!(contents(&file), read, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_header_cannot_claim_more_than_the_file_has() {
        let with_header = |length: u64, header: &str| [&length.to_le_bytes()[..], header.as_bytes()].concat();
        for length in [1, 1 << 20, 1 << 40, u64::MAX] {
            assert!(message(&with_header(length, "{}")).contains("damaged"), "{length}");
        }
        let metadata = r#""__metadata__":{"manygate.kind":"model","manygate.version":"1"}"#;
        for (shape, end) in
            [("[4294967296,4294967296]", 4u64), ("[1099511627776]", 1 << 42), ("[1]", u64::MAX)]
        {
            let tensor = format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#);
            let header = format!(r#"{{{metadata},"a":{tensor}}}"#);
            assert!(message(&with_header(header.len() as u64, &header)).contains("damaged"), "{shape}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(message(&with_header(deep.len() as u64, &deep)).contains("damaged"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), length in 0..300u64) {
            let _ = TensorFile::parse(Path::new("m"), &bytes, "model");
            let headed = [&length.to_le_bytes()[..], &bytes].concat();
            let _ = TensorFile::parse(Path::new("m"), &headed, "model");
        }

        #[test]
        fn a_damaged_file_is_refused(
            cut in any::<Index>(),
            splices in vec((any::<Index>(), any::<u8>()), 1..8),
        ) {
            let good = file("model");
            let whole = contents(&TensorFile::parse(Path::new("m"), &good, "model").unwrap());
            let mut spoilt = good.clone();
            for (at, byte) in splices {
                let at = at.index(spoilt.len());
                spoilt[at] = byte;
            }
            if let Ok(file) = TensorFile::parse(Path::new("m"), &spoilt, "model") {
                prop_assert_eq!(contents(&file), whole);
            }
            let cut = cut.index(good.len());
            prop_assert!(TensorFile::parse(Path::new("m"), &good[..cut], "model").is_err());
        }
    }
}
