//! The CSV reader: formats of files and true line numbers.

use crate::support::{gzip, write};
use manygate_data::CsvReader;

/// The line and first value of every record.
fn records(bytes: &[u8]) -> Vec<(u64, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = CsvReader::open(&write(folder.path(), "a.csv", bytes)).unwrap();
    let mut records = Vec::new();
    while reader.advance().unwrap() {
        records.push((reader.line(), reader.cell(0).unwrap().to_owned()));
    }
    records
}

fn at(records: &[(u64, &str)]) -> Vec<(u64, String)> {
    records.iter().map(|(line, value)| (*line, (*value).to_owned())).collect()
}

#[test]
fn lines_are_those_of_the_file() {
    assert_eq!(records(b"a,b\n1,2\n3,4\n"), at(&[(2, "1"), (3, "3")]));
    assert_eq!(records(b"a,b\n1,2\n3,4"), at(&[(2, "1"), (3, "3")]), "no line feed at the end");
    assert_eq!(records(b"a,b\r\n1,2\r\n3,4\r\n"), at(&[(2, "1"), (3, "3")]), "CRLF");
    assert_eq!(records(b"a,b\n\n\n1,2\n\n3,4\n\n"), at(&[(4, "1"), (6, "3")]), "blank lines");
    assert_eq!(
        records(b"a,b\n\"x\ny\",2\n3,\"\n\n\"\n5,6\n"),
        at(&[(2, "x\ny"), (4, "3"), (7, "5")]),
        "quoted"
    );
    assert_eq!(records(b"a\n1\n\"x\n"), at(&[(2, "1"), (3, "x\n")]), "an open quote at the end");
    assert_eq!(records(b"\xef\xbb\xbfa,b\n1,2\n"), at(&[(2, "1")]), "a byte order mark");
}

#[test]
fn gzip_is_known_by_its_first_bytes() {
    let text = b"a,b\n1,2\n\n3,4\n";
    assert_eq!(records(&gzip(text)), records(text));
    let two_members = [gzip(b"a,b\n1,2\n"), gzip(b"\n3,4\n")].concat();
    assert_eq!(records(&two_members), records(text));
    let folder = tempfile::tempdir().unwrap();
    let mut cut = gzip(&b"a,b\n1,2\n".repeat(1000));
    cut.truncate(cut.len() / 2);
    let path = write(folder.path(), "cut.csv", cut);
    let error = match CsvReader::open(&path) {
        Err(error) => error,
        Ok(mut reader) => loop {
            match reader.advance() {
                Ok(more) => assert!(more, "a cut file must not end quietly"),
                Err(error) => break error,
            }
        },
    };
    assert!(error.to_string().contains("the gzip data ends or breaks here"), "{error}");
}

#[test]
fn long_files_keep_their_line_numbers() {
    let mut text = String::from("a,b\n");
    for row in 0..20_000 {
        text.push_str(if row % 3 == 0 { "\"two\nlines\",x\r\n" } else { "one line,y\n" });
    }
    let mut line = 2;
    for (row, (found, _)) in records(text.as_bytes()).into_iter().enumerate() {
        assert_eq!(found, line);
        line += if row % 3 == 0 { 2 } else { 1 };
    }
    assert_eq!(line, 2 + 20_000 + 6_667);
}

#[test]
fn columns_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let reader = CsvReader::open(&write(folder.path(), "a.csv", "user_id,tab,tab\n1,2,3\n")).unwrap();
    assert_eq!(reader.column("user_id").unwrap(), 0);
    let message = reader.column("usr_id").unwrap_err().to_string();
    assert!(
        message.ends_with(
            "a.csv: column `usr_id`: there is no such column; did you mean `user_id`? (the columns are `user_id`, \
             `tab`, `tab`)"
        ),
        "{message}"
    );
    let message = reader.column("tab").unwrap_err().to_string();
    assert!(message.contains("the header has this column twice"), "{message}");
}
