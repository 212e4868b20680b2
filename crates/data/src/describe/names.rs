//! What the name of a column says about it.

/// Names of columns that often hold the scenario, whole.
const SCENARIOS: [&str; 8] =
    ["scenario", "scenario_id", "scene", "domain", "domain_id", "placement", "channel", "tab"];
/// Names of columns that often hold the user, whole.
const USERS: [&str; 5] = ["user", "user_id", "userid", "uid", "member_id"];

const LABEL: [&str; 30] = [
    "label",
    "target",
    "click",
    "clicked",
    "ctr",
    "cvr",
    "conversion",
    "converted",
    "buy",
    "bought",
    "purchase",
    "purchased",
    "order",
    "ordered",
    "pay",
    "paid",
    "cart",
    "like",
    "liked",
    "follow",
    "followed",
    "share",
    "shared",
    "comment",
    "forward",
    "view",
    "finish",
    "enter",
    "install",
    "download",
];
const TIME: [&str; 6] = ["time", "timestamp", "ts", "date", "day", "dt"];
/// Spent after the event that a label tells.
const SPENT: [&str; 6] = ["play", "played", "watch", "watched", "dwell", "stay"];
const MEASURES: [&str; 8] = ["time", "ms", "sec", "secs", "seconds", "duration", "ratio", "length"];
const ID: [&str; 8] = ["id", "ids", "code", "type", "category", "cat", "level", "onehot"];
const SEQUENCE: [&str; 9] =
    ["hist", "history", "seq", "sequence", "recent", "past", "last", "behavior", "behaviour"];

/// The words of a name: at `_`, other marks, and where a capital letter follows a small one.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (small && c.is_uppercase()) {
            words.push(String::new());
        }
        small = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn has_word(name: &str, among: &[&str]) -> bool {
    words(name).iter().any(|word| among.contains(&word.as_str()))
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Whether it is the usual name of a scenario column.
pub(super) fn is_scenario(name: &str) -> bool {
    is_one_of(name, &SCENARIOS)
}

/// Whether it is the usual name of a user column.
pub(super) fn is_user(name: &str) -> bool {
    is_one_of(name, &USERS)
}

/// Whether it reads like a label: `is_click`, `long_view`.
pub(super) fn is_label(name: &str) -> bool {
    has_word(name, &LABEL) && !is_sequence(name) && !is_spent(name)
}

/// Whether it reads like a time or date.
pub(super) fn is_time(name: &str) -> bool {
    has_word(name, &TIME) && !is_spent(name)
}

/// Whether it reads like a measure of what happened after the event: `play_time_ms`.
pub(super) fn is_spent(name: &str) -> bool {
    has_word(name, &SPENT) && has_word(name, &MEASURES)
}

/// Whether it reads like an identifier or code, whose digits are no amount.
pub(super) fn is_id(name: &str) -> bool {
    has_word(name, &ID) || is_user(name) || is_scenario(name)
}

/// Whether it reads like a history, oldest first.
pub(super) fn is_sequence(name: &str) -> bool {
    has_word(name, &SEQUENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_word_by_word() {
        assert_eq!(words("histVideo_ids-2"), ["hist", "video", "ids", "2"]);
        for name in ["is_click", "long_view", "isLike", "label"] {
            assert!(is_label(name), "{name}");
        }
        for name in ["video_id", "hist_long_view_ids", "reviewer", "play_time_ms"] {
            assert!(!is_label(name), "{name}");
        }
        assert!(
            is_spent("play_time_ms") && !is_time("play_time_ms") && is_time("time_ms") && is_time("date")
        );
        assert!(is_id("video_id") && is_id("uid") && is_id("tab") && !is_id("age"));
        assert!(is_scenario("Tab") && is_user("USER_ID") && is_sequence("hist_ids"));
    }
}
