//! `unsafe` stands where ARCHITECTURE.md says that it does, and nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The section of ARCHITECTURE.md with the list, the first column of a table: `path/file.rs`, or `path/` for all of a
/// folder.
const SECTION: &str = "## Where `unsafe` is";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the repository")
        .to_path_buf()
}

/// All Rust files below `folder`, those of builds left out.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        if path.is_dir() && !hidden && name != "target" {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Whether a file has the keyword, outside of comments and texts.
fn has_unsafe(text: &str) -> bool {
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        let outside_texts: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let word = |c: char| c.is_alphanumeric() || c == '_';
        outside_texts.split(|c: char| !word(c)).any(|w| w == "unsafe")
    })
}

fn listed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split(SECTION).nth(1).expect("the section").split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let quoted = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.filter(|name| name.ends_with(".rs") || name.ends_with('/')).map(str::to_owned).collect()
}

#[test]
fn unsafe_is_where_the_list_says() {
    let (root, listed) = (root(), listed());
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "the sources are not here: {files:?}");
    let mut needed = BTreeSet::new();
    let mut strays = Vec::new();
    for path in files {
        if !has_unsafe(&fs::read_to_string(&path).expect("a source is text")) {
            continue;
        }
        let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
        match listed.iter().find(|entry| name == **entry || entry.ends_with('/') && name.starts_with(*entry))
        {
            Some(entry) => {
                needed.insert(entry.clone());
            }
            None => strays.push(name),
        }
    }
    assert!(
        strays.is_empty(),
        "move the unsafe code of {strays:?} into a listed module, or list it with its reason"
    );
    let idle: Vec<_> = listed.difference(&needed).collect();
    assert!(idle.is_empty(), "listed in ARCHITECTURE.md and without unsafe code: {idle:?}");
}

#[test]
fn the_keyword_is_told_from_the_word() {
    assert!(has_unsafe("    let x = unsafe { *p };"));
    assert!(has_unsafe("unsafe impl Sync for X {}"));
    assert!(!has_unsafe("#![forbid(unsafe_code)] // unsafe\n/// An unsafe thing.\nlet word = \"unsafe\";"));
}
