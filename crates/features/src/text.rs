//! Words for messages: values shortened for display, and the name that was probably meant.

/// `value` in backticks for a message: control characters escaped, cut after 60 characters.
pub fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut text = String::from("`");
    for (i, c) in value.chars().enumerate() {
        if i == LONGEST {
            text.push('…');
            break;
        }
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('`');
    text
}

/// `; did you mean ...?` with the nearest of `names`, or nothing where none is near.
pub fn did_you_mean<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let allowed = (name.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| format!("; did you mean {}?", shown(candidate)))
        .unwrap_or_default()
}

/// Levenshtein's edit distance in characters, ignoring ASCII case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from.to_ascii_lowercase() != to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["user_id", "video_id", "tab"];
        assert_eq!(did_you_mean("vidoe_id", names), "; did you mean `video_id`?");
        assert_eq!(did_you_mean("TAB", names), "; did you mean `tab`?");
        assert_eq!(did_you_mean("duration", names), "");
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn long_and_odd_values_are_shown_on_one_short_line() {
        assert_eq!(shown("a\nb"), "`a\\nb`");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 63);
    }
}
