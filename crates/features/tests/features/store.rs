//! Encoders on disk: the same after a round trip, and an error for everything damaged.

use std::fs;
use std::path::Path;

use crate::support::{EVERY_KIND, ROLES, encoder, fitter};
use manygate_core::Error;
use manygate_features::{Encoder, Roles};
use proptest::prelude::*;

#[test]
fn a_saved_encoder_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab");
    let saved = encoder(Roles { unknown_scenario: Some("feed"), ..ROLES });
    saved.save(&path).unwrap();
    assert_eq!(Encoder::load(&path).unwrap(), saved);
    assert_eq!(fs::read_to_string(path.join("user.jsonl")).unwrap(), "\"ann\"\n\"bob\"\n\"\"\n");
    assert!(!path.join("hour.jsonl").exists(), "a table of integer ids has no vocabulary");
}

#[track_caller]
fn damage(file: &str, change: impl Fn(&str) -> String, want: &str) {
    let folder = tempfile::tempdir().unwrap();
    encoder(ROLES).save(folder.path()).unwrap();
    let path = folder.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "the test must change the file");
    fs::write(&path, changed).unwrap();
    let error = Encoder::load(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    assert!(error.to_string().contains(want), "{error}");
}

#[test]
fn damaged_files_are_refused_with_the_reason() {
    damage("user.jsonl", |t| t.replace("\"bob\"", "bob"), "user.jsonl: the file is damaged: line 2: ");
    damage("user.jsonl", |t| t.replace("bob", "ann"), "line 2: the value appears twice");
    damage("user.jsonl", |t| t.replace("\"bob\"\n", ""), "table `user` has 4 rows, its vocabulary 3");
    damage("schema.json", |t| t[..t.len() / 2].to_owned(), "schema.json: the file is damaged: ");
    damage("schema.json", |_| "[]".to_owned(), "there is no format version");
    damage("schema.json", |t| t.replace("\"version\": 2", "\"version\": 1"), "version 2 is needed");
    damage(
        "schema.json",
        |t| t.replace("\"std\": 10.0", "\"std\": 0.0"),
        "the statistics of the number `age`",
    );
    damage("schema.json", |t| t.replace("\"separators\"", "\"seperators\""), "unknown field `seperators`");
}

#[test]
fn hashes_and_buckets_come_back_the_same() {
    let text = r#"
        features = [
            { kind = "categorical", columns = ["user"], hash = 1000 },
            { kind = "bucket", columns = ["age"], quantiles = 3, missing = ["?"] },
        ]
        tasks = [{ name = "click" }]
    "#;
    let mut fitter = fitter(text, Roles::default()).unwrap();
    for age in ["0.1", "0.2", "0.3", "?"] {
        fitter.observe(&["ann", age]).unwrap();
    }
    let saved = fitter.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    saved.save(folder.path()).unwrap();
    assert_eq!(Encoder::load(folder.path()).unwrap(), saved);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "neither has a vocabulary");
    let path = folder.path().join("schema.json");
    let text = fs::read_to_string(&path).unwrap();
    for (old, new, want) in [
        ("\"hash\": 1000", "\"hash\": 0", "table `user`: values are hashed to no rows"),
        ("\"hash\": 1000", "\"hash\": 999", "table `user` has 1001 rows, its vocabulary 1000"),
        ("0.3", "0.1", "table `age`: must rise, and 0.2 does not stand below 0.1"),
    ] {
        assert!(text.contains(old), "{text}");
        fs::write(&path, text.replace(old, new)).unwrap();
        let message = Encoder::load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("the file is damaged") && message.contains(want), "{message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    encoder(ROLES).save(folder.path()).unwrap();
    fs::remove_file(folder.path().join("item.jsonl")).unwrap();
    let error = Encoder::load(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("item.jsonl")), "{error}");
    assert!(Encoder::load(Path::new("no/such/folder")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_values_survive_saving(values in prop::collection::vec(any::<String>(), 1..20), number in any::<f32>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut fitter = fitter(EVERY_KIND, ROLES).unwrap();
        let age = if number.is_finite() { number.to_string() } else { String::new() };
        for value in &values {
            fitter.observe(&[value, value, "0", value, value, &age, value]).unwrap();
        }
        let saved = fitter.finish().unwrap();
        saved.save(folder.path()).unwrap();
        prop_assert_eq!(Encoder::load(folder.path()).unwrap(), saved);
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_another_encoder(file in 0usize..3, at in any::<prop::sample::Index>(), bit in 0..8) {
        let folder = tempfile::tempdir().unwrap();
        encoder(ROLES).save(folder.path()).unwrap();
        let path = folder.path().join(["schema.json", "user.jsonl", "item.jsonl"][file]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        fs::write(&path, bytes).unwrap();
        match Encoder::load(folder.path()) {
            // What loads can be used.
            Ok(loaded) => {
                let cells: Vec<&str> = loaded.columns().iter().map(|_| "0").collect();
                let _ = loaded.encode(&cells, &mut loaded.empty_batch(1, true));
            }
            Err(error) => prop_assert!(error.to_string().contains(&folder.path().display().to_string()), "{}", error),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..4000) {
        let folder = tempfile::tempdir().unwrap();
        encoder(ROLES).save(folder.path()).unwrap();
        fs::write(folder.path().join("item.jsonl"), &bytes).unwrap();
        let _ = Encoder::load(folder.path());
        encoder(ROLES).save(folder.path()).unwrap();
        let path = folder.path().join("schema.json");
        let mut text = fs::read(&path).unwrap();
        let cut = cut.min(text.len());
        let end = (cut + bytes.len()).min(text.len());
        text.splice(cut..end, bytes);
        fs::write(&path, text).unwrap();
        let _ = Encoder::load(folder.path());
    }
}
