//! Data with known properties: tasks of a chosen correlation, scenarios, cascades, histories.
//!
//! A row is a function of seed and number, so that files are the same at any number of threads, and a file of millions
//! of rows needs no memory.

mod options;
mod world;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use manygate_core::{Error, Executor, Result};
use manygate_features::{FeatureConfig, Pooling, Transform};

use crate::config::{DataConfig, ValidConfig};
use crate::sections::{Model, Sections, binary_task};
use world::{Row, Rows, World};

pub use options::{LabelRule, SynthOptions};

/// Rows that one thread makes at a time.
const BLOCK: u64 = 1024;
const SCENARIO: &str = "scenario";
const USER: &str = "user";
const ITEM: &str = "item";
const HISTORY: &str = "history";
const SEPARATOR: &str = "|";

/// Writes the rows as CSV, gzip where the name ends with `.gz`. The file appears whole or not at all. `progress` is told
/// now and then how many rows were written.
///
/// # Errors
/// [`Error::Config`] for options that cannot be used, [`Error::Io`] when the file system refuses.
pub fn write_file(
    options: &SynthOptions,
    path: &Path,
    exec: &dyn Executor,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let world = World::new(options)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if extension == "zst" {
        return Err(Error::config(
            "--out",
            "files are written plain or as gzip: end the name with .csv or .csv.gz",
        ));
    }
    if path.exists() && !path.is_file() {
        // A device or pipe would be replaced by the rename.
        return Err(Error::config("--out", format!("`{}` is not a regular file; name one", path.display())));
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        if extension == "gz" {
            let mut gzip = GzEncoder::new(&mut file, Compression::default());
            write_rows(&world, options, exec, &mut gzip, progress)?;
            gzip.finish()?;
        } else {
            write_rows(&world, options, exec, &mut file, progress)?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(e)
    })
}

/// Makes blocks of rows on all threads, and writes them in order.
fn write_rows(
    world: &World<'_>,
    options: &SynthOptions,
    exec: &dyn Executor,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    writeln!(out, "{}", header(options).join(","))?;
    let blocks: Vec<Mutex<Vec<u8>>> = (0..4 * exec.threads()).map(|_| Mutex::default()).collect();
    let round = BLOCK * blocks.len() as u64;
    for start in (0..options.rows).step_by(round as usize) {
        exec.run(blocks.len(), &|piece, _| {
            let first = start + piece as u64 * BLOCK;
            let mut text = blocks[piece].lock().unwrap_or_else(PoisonError::into_inner);
            text.clear();
            let mut row = Row::default();
            for number in first..(first + BLOCK).min(options.rows) {
                world.draw(Rows::Written, number, &mut row);
                // A vector refuses nothing.
                let _ = write_row(options, &row, &mut *text);
            }
        });
        for block in &blocks {
            out.write_all(&block.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        progress((start + round).min(options.rows));
    }
    Ok(())
}

fn numbered(name: &str, count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(move |number| format!("{name}{number}"))
}

fn header(options: &SynthOptions) -> Vec<String> {
    let mut header = Vec::new();
    let optional = [
        (SCENARIO, !options.scenarios.is_empty()),
        (USER, options.ids > 0),
        (ITEM, options.ids > 0),
        (HISTORY, options.sequence > 0),
    ];
    header.extend(optional.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()));
    header.extend(numbered("x", options.inputs));
    header.extend(numbered("target", if options.targets { options.tasks } else { 0 }));
    header.extend(numbered("task", options.tasks));
    header
}

fn write_row(options: &SynthOptions, row: &Row, out: &mut impl Write) -> io::Result<()> {
    if !options.scenarios.is_empty() {
        write!(out, "s{},", row.scenario + 1)?;
    }
    if options.ids > 0 {
        write!(out, "u{},i{},", row.user + 1, row.item + 1)?;
    }
    if options.sequence > 0 {
        for (place, item) in row.history.iter().enumerate() {
            write!(out, "{}i{}", if place > 0 { SEPARATOR } else { "" }, item + 1)?;
        }
        write!(out, ",")?;
    }
    for x in &row.inputs {
        write!(out, "{x:.4},")?;
    }
    if options.targets {
        for target in &row.targets {
            write!(out, "{target:.5},")?;
        }
    }
    for (task, label) in row.labels.iter().enumerate() {
        write!(out, "{}{}", if task > 0 { "," } else { "" }, u8::from(*label))?;
    }
    writeln!(out)
}

/// A configuration, as TOML, that trains on the file `path`.
///
/// # Errors
/// As for [`write_file`].
pub fn configuration(options: &SynthOptions, path: &Path) -> Result<String> {
    options.check()?;
    let scenario = (!options.scenarios.is_empty()).then(|| SCENARIO.to_owned());
    let mut ids: Vec<String> = scenario.iter().cloned().collect();
    if options.ids > 0 {
        ids.extend([USER, ITEM].map(str::to_owned));
    }
    let mut features = Vec::new();
    if !ids.is_empty() {
        features.push(FeatureConfig::Categorical {
            columns: ids,
            min_count: None,
            ids: None,
            hash: None,
            dim: None,
            table: None,
            only_in: Vec::new(),
        });
    }
    if options.sequence > 0 {
        features.push(FeatureConfig::Sequence {
            columns: vec![HISTORY.to_owned()],
            separator: SEPARATOR.to_owned(),
            max_length: options.sequence,
            pooling: Pooling::Mean,
            min_count: None,
            hash: None,
            dim: None,
            table: Some(ITEM.to_owned()),
            keep_unknown: false,
            only_in: Vec::new(),
        });
    }
    features.push(FeatureConfig::Numeric {
        columns: numbered("x", options.inputs).collect(),
        transform: Transform::Identity,
        missing: Vec::new(),
        only_in: Vec::new(),
    });
    let after = |task: usize| (options.cascade && task > 1).then(|| format!("task{}", task - 1));
    let sections = Sections {
        model: Model { name: "mmoe" },
        data: DataConfig {
            train: vec![path.to_path_buf()],
            test: Vec::new(),
            valid: ValidConfig::LastFraction(0.1),
            scenario,
            unknown_scenario: None,
            scenario_weights: BTreeMap::new(),
            user: (options.ids > 0).then(|| USER.to_owned()),
            time: None,
        },
        features,
        tasks: (1..=options.tasks).map(|task| binary_task(&format!("task{task}"), after(task))).collect(),
    };
    sections.toml()
}
