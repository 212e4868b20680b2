//! Files that are written: their bytes, and that they can be read.

use manygate_core::{Pool, Serial};
use manygate_data::synth::{LabelRule, SynthOptions, configuration, write_file};
use manygate_data::{CsvReader, load};

use crate::support::Config;

fn options() -> SynthOptions {
    SynthOptions {
        rows: 10_000,
        seed: 3,
        inputs: 6,
        tasks: 2,
        correlation: 0.5,
        rates: vec![0.3, 0.1],
        labels: LabelRule::Sample,
        targets: true,
        cascade: true,
        scenarios: vec![0.7, 0.2, 0.1],
        ids: 100,
        sequence: 5,
    }
}

#[test]
fn the_same_bytes_at_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, threads: usize, options: &SynthOptions| {
        let path = folder.path().join(name);
        let mut told = 0;
        Pool::new(threads)
            .unwrap()
            .enter(|exec| write_file(options, &path, exec, &mut |rows| told = rows))
            .unwrap();
        assert_eq!(told, options.rows);
        std::fs::read(path).unwrap()
    };
    let one = write("one.csv", 1, &options());
    assert!(write("three.csv", 3, &options()) == one);
    assert!(write("one.csv.gz", 1, &options()) == write("two.csv.gz", 2, &options()));
    assert!(write("seed.csv", 2, &SynthOptions { seed: 4, ..options() }) != one);
    // Rows do not depend on how many there are.
    assert!(one.starts_with(&write("few.csv", 2, &SynthOptions { rows: 1500, ..options() })));
    // The bytes of a seed stay what they are.
    let begin = std::str::from_utf8(&one).unwrap().lines().take(2).collect::<Vec<_>>();
    assert_eq!(begin[0], "scenario,user,item,history,x1,x2,x3,x4,x5,x6,target1,target2,task1,task2");
    let first = "s1,u5,i34,i7|i5|i31|i23,1.0378,-0.2865,-0.4381,0.0990,-1.7633,0.3260,-8.19847,-5.46418,0,0";
    assert_eq!(begin[1], first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6, "no temporary file is left");
}

#[test]
fn the_configuration_reads_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv.gz");
    for options in
        [options(), SynthOptions { scenarios: vec![], ids: 0, sequence: 0, cascade: false, ..options() }]
    {
        write_file(&options, &path, &Serial, &mut |_| {}).unwrap();
        let text = configuration(&options, &path).unwrap();
        let mut table: toml::Table = text.parse().unwrap();
        assert_eq!(table.remove("model").unwrap()["name"].as_str(), Some("mmoe"));
        let Config { data, features, tasks } = table.try_into().unwrap();
        let splits = load(&data, &features, &tasks, &mut |_| {}).unwrap();
        assert_eq!(splits.fit.batch.rows, 9000);
        assert_eq!(splits.fit.batch.dense_width, 6);
        let rate = |task: usize| splits.fit.batch.labels[task].iter().sum::<f32>() / 9000.0;
        assert!((rate(0) - 0.3).abs() < 0.03 && (rate(1) - 0.1).abs() < 0.02, "{} {}", rate(0), rate(1));
        if !options.scenarios.is_empty() {
            assert_eq!(splits.encoder.schema().scenarios.len(), 3);
            assert_eq!(splits.encoder.schema().tasks[1].after, Some(0));
            assert_eq!(splits.violations(), []);
            let first = splits
                .fit
                .batch
                .scenario
                .iter()
                .filter(|&&s| splits.encoder.schema().scenarios[s as usize] == "s1");
            assert!((first.count() as f64 / 9000.0 - 0.7).abs() < 0.02);
        }
    }
}

#[test]
fn targets_tell_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let options = SynthOptions {
        labels: LabelRule::Threshold,
        cascade: false,
        tasks: 1,
        rates: vec![0.2],
        ..options()
    };
    write_file(&options, &path, &Serial, &mut |_| {}).unwrap();
    let mut reader = CsvReader::open(&path).unwrap();
    let (target, label) = (reader.column("target1").unwrap(), reader.column("task1").unwrap());
    let (mut positives, mut least, mut largest) = (0, f64::INFINITY, f64::NEG_INFINITY);
    while reader.advance().unwrap() {
        let target: f64 = reader.cell(target).unwrap().parse().unwrap();
        if reader.cell(label).unwrap() == "1" {
            positives += 1;
            least = least.min(target);
        } else {
            largest = largest.max(target);
        }
    }
    assert!((1800..2200).contains(&positives), "{positives}");
    assert!(least + 1e-5 >= largest, "a threshold divides: {least} {largest}");
}

#[test]
fn options_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, options: SynthOptions| {
        write_file(&options, &folder.path().join(name), &Serial, &mut |_| {}).unwrap_err().to_string()
    };
    for (options, want) in [
        (SynthOptions { rows: 0, ..options() }, "--rows: 0 is not possible: from 1"),
        (SynthOptions { inputs: 1, ..options() }, "--tasks: each needs a direction of its own: at most 1"),
        (SynthOptions { correlation: 1.5, ..options() }, "--correlation: 1.5 is not a cosine"),
        (SynthOptions { correlation: f64::NAN, ..options() }, "--correlation: NaN is not a cosine"),
        (SynthOptions { scenarios: vec![0.5, -0.5], ..options() }, "--scenarios: -0.5 is not a share"),
        (SynthOptions { ids: 0, ..options() }, "--sequence: a history needs items"),
        (SynthOptions { rates: vec![0.1, 0.2], ..options() }, "--rate: the rates of a cascade cannot rise"),
        (SynthOptions { rates: vec![0.1; 3], ..options() }, "--rate: 3 are given for 2 tasks"),
        (SynthOptions { rates: vec![1.0, 0.5], ..options() }, "--rate: 1 is not a rate"),
    ] {
        let message = message("a.csv", options);
        assert!(message.starts_with("configuration: ") && message.contains(want), "{message}");
    }
    assert!(message("a.csv.zst", options()).contains("--out: files are written plain or as gzip"));
    assert!(message("no/such/folder/a.csv", options()).contains("cannot write"));
}
