//! An encoder in a folder: `schema.json`, and for each table with a vocabulary `<table>.jsonl`, whose line `n` is the
//! value of row `n` as a JSON string (values may hold any character, line breaks included).

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use manygate_core::{Error, Result, write_atomically};
use serde::{Deserialize, Serialize};

use crate::encode::Encoder;
use crate::numbering::Numbering;
use crate::recipe::Recipe;
use crate::schema::Schema;
use crate::vocabulary::Vocabulary;

/// Version of the folder's format.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    schema: Schema,
    recipe: Recipe,
}

impl Encoder {
    /// Saves the schema, statistics and vocabularies in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        for (table, vocabulary) in self.schema.tables.iter().zip(&self.vocabularies) {
            let Vocabulary::Values(numbering) = vocabulary else { continue };
            let mut text = String::new();
            for value in numbering.texts() {
                text.push_str(&serde_json::Value::from(value).to_string());
                text.push('\n');
            }
            write_atomically(&vocabulary_path(folder, &table.name), text.as_bytes())?;
        }
        let saved = Saved { version: VERSION, schema: self.schema.clone(), recipe: self.recipe.clone() };
        let path = folder.join("schema.json");
        let text = serde_json::to_string_pretty(&saved).map_err(|e| Error::format(&path, e.to_string()))?;
        write_atomically(&path, (text + "\n").as_bytes())
    }

    /// Loads what [`save`](Encoder::save) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read, [`Error::Format`] when one is damaged, foreign or of another version.
    pub fn load(folder: &Path) -> Result<Encoder> {
        let path = folder.join("schema.json");
        let text = read(&path)?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(&path, e))?;
        // Before the rest, whose keys another version may have changed.
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version != u64::from(VERSION) => {
                let message = format!("this is version {version} of the format, version {VERSION} is needed");
                return Err(Error::format(
                    &path,
                    format!("{message}: use the program that wrote it, or train again"),
                ));
            }
            Some(_) => {}
            None => return Err(damaged(&path, "there is no format version")),
        }
        let saved: Saved = serde_json::from_value(value).map_err(|e| damaged(&path, e))?;
        if saved.recipe.rows.len() != saved.schema.tables.len() {
            return Err(damaged(&path, "tables and their rows differ in number"));
        }
        let mut vocabularies = Vec::new();
        for (table, rows) in saved.schema.tables.iter().zip(&saved.recipe.rows) {
            let values = || load_values(&vocabulary_path(folder, &table.name));
            vocabularies.push(Vocabulary::new(rows, values)?);
        }
        Encoder::new(saved.schema, saved.recipe, vocabularies).map_err(|message| damaged(&path, message))
    }
}

fn load_values(path: &Path) -> Result<Numbering> {
    let text = read(path)?;
    let mut values = Numbering::default();
    for (i, line) in text.lines().enumerate() {
        let value: String =
            serde_json::from_str(line).map_err(|e| damaged(path, format!("line {}: {e}", i + 1)))?;
        if values.number(&value) as usize != i {
            return Err(damaged(path, format!("line {}: the value appears twice", i + 1)));
        }
    }
    Ok(values)
}

/// The file of a table. Letters, digits, `_`, `-` and inner dots stay as they are, other bytes are written `%2F`, so
/// that no name leaves the folder.
fn vocabulary_path(folder: &Path, table: &str) -> PathBuf {
    let mut name = String::new();
    for c in table.chars() {
        if c.is_alphanumeric() || c == '_' || c == '-' || (c == '.' && !name.is_empty()) {
            name.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    folder.join(name + ".jsonl")
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::format(path, format!("the file is damaged: {what}; copy the whole folder anew, or train again"))
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|e| damaged(path, e.utf8_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_stay_in_the_folder() {
        let path = |table| vocabulary_path(Path::new("vocab"), table);
        assert_eq!(path("user_id"), Path::new("vocab/user_id.jsonl"));
        assert_eq!(path("tag.values"), Path::new("vocab/tag.values.jsonl"));
        assert_eq!(path("../a b"), Path::new("vocab/%2E.%2Fa%20b.jsonl"));
        assert_eq!(path("标签"), Path::new("vocab/标签.jsonl"));
    }
}
