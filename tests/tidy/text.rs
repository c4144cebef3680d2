//! Rules for any text file of the project.

use crate::Complaint;

/// Words that mark unfinished work. Written in halves, so that this file does not contain them.
const LEFTOVER_WORDS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];

/// Marks of unfinished work.
pub fn check_leftover_words(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = line.split(|one: char| !one.is_alphanumeric() && one != '_');
        let left = words.filter(|word| LEFTOVER_WORDS.contains(word));
        complaints.extend(left.map(|word| format!("{path}:{}: `{word}` was left behind", index + 1)));
    }
    complaints
}

/// A source file says first what it is.
pub fn check_opening(path: &str, text: &str) -> Vec<Complaint> {
    let first = text.lines().next().unwrap_or_default();
    let is_purpose = first.strip_prefix("//! ").is_some_and(|purpose| purpose.len() > 10);
    if is_purpose {
        Vec::new()
    } else {
        vec![format!("{path}: the first line is not `//!` and what the file is")]
    }
}

/// Parts of paths of a machine, and names of helpers. Written in halves, so that this file does not contain them.
const PRIVATE: [&str; 10] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("bash_", "jobs"),
    concat!("cla", "ude"),
    concat!("chat", "gpt"),
    concat!("copi", "lot"),
    concat!("local", "host:"),
    concat!("co-auth", "ored-by"),
];

/// Names that mean something on one machine or to one author only.
pub fn check_private_names(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let named = PRIVATE.iter().filter(|name| lower.contains(&name.to_lowercase()));
        complaints.extend(named.map(|name| format!("{path}:{}: `{name}` has no place here", index + 1)));
    }
    complaints
}

/// No tabs, no carriage returns, no spaces at line ends, one newline at the end of the file.
pub fn check_plain(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let faults = [(line.contains('\t'), "a tab"), (line.contains('\r'), "a carriage return")];
        let faults = faults.into_iter().chain([(line.ends_with(' '), "a space at the end")]);
        let found = faults.filter(|(is_there, _)| *is_there);
        complaints.extend(found.map(|(_, what)| format!("{path}:{}: {what}", index + 1)));
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        complaints.push(format!("{path}: not one newline at the end"));
    }
    complaints
}

/// The one registry that dependencies may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Dependencies from anywhere else.
pub fn check_lock(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut count = 0;
    for (index, line) in text.lines().enumerate() {
        let Some(source) = line.strip_prefix("source = ") else { continue };
        count += 1;
        if source.trim_matches('"') != REGISTRY {
            complaints.push(format!("{path}:{}: a dependency from {source}", index + 1));
        }
    }
    if count == 0 {
        complaints.push(format!("{path}: no dependency has a source: the search is broken"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftover_words_are_found_as_words() {
        for word in LEFTOVER_WORDS {
            assert_eq!(check_leftover_words("a", &format!("// {word}: later")).len(), 1);
            assert_eq!(check_leftover_words("a", &format!("{word}S and MY{word}")).len(), 0);
        }
    }

    #[test]
    fn an_opening_without_purpose_is_found() {
        assert_eq!(check_opening("a.rs", "//! What it is, in words.\n").len(), 0);
        for text in ["", "use std::fs;\n", "//!\n//! Late purpose.\n", "// A plain comment.\n"] {
            assert_eq!(check_opening("a.rs", text).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn private_names_are_found_in_any_case() {
        for name in PRIVATE {
            assert_eq!(check_private_names("a", &format!("see {} there", name.to_uppercase())).len(), 1);
        }
        assert_eq!(
            check_private_names("a", "cargo test --workspace, a framework/workflow, root/home").len(),
            0
        );
    }

    #[test]
    fn unplain_text_is_found() {
        assert_eq!(check_plain("a", "one\ntwo\n").len(), 0);
        for text in ["a\tb\n", "a\r\n", "a \n", "a", "a\n\n"] {
            assert_eq!(check_plain("a", text).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn foreign_sources_are_found() {
        let good = format!("[[package]]\nsource = \"{REGISTRY}\"\n");
        assert_eq!(check_lock("Cargo.lock", &good).len(), 0);
        assert_eq!(
            check_lock("Cargo.lock", &format!("{good}source = \"git+https://example.org/x\"\n")).len(),
            1
        );
        assert_eq!(check_lock("Cargo.lock", "").len(), 1);
    }
}
