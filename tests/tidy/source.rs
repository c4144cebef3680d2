//! Rust source as the checks need it: code without comments and literals, tokens with lines, and paths with use
//! groups taken apart.

/// A source file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the project's root.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Comments and the content of literals replaced by spaces; lines are kept.
    pub code: String,
    /// Everything but comments replaced by spaces; lines are kept.
    pub comments: String,
}

/// A piece of code: an identifier or number, `::`, or one other character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub line: usize,
    pub text: &'a str,
}

/// A path in code, such as `std::fs::File`; a macro call ends with the segment `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePath<'a> {
    pub line: usize,
    /// Index of its first token, or of its first one inside a use group.
    pub token: usize,
    pub segments: Vec<&'a str>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, comments) = separate(text);
        Source { path: path.to_string(), text: text.to_string(), code, comments }
    }

    /// The same file without items under `#[cfg(test)]`.
    pub fn without_tests(&self) -> Source {
        Source { code: without_test_items(&self.code), ..self.clone() }
    }
}

/// Splits a text into code and comments, each with the other's characters blanked.
fn separate(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Separated::default();
    let mut at = 0;
    while at < chars.len() {
        at = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => out.comment(&chars, at, line_end(&chars, at)),
            '/' if chars.get(at + 1) == Some(&'*') => out.comment(&chars, at, block_comment_end(&chars, at)),
            '"' => out.literal(&chars, at, string_end(&chars, at)),
            '\'' => match char_end(&chars, at) {
                Some(end) => out.literal(&chars, at, end),
                None => out.code(&chars, at, at + 1),
            },
            'r' if !follows_identifier(&chars, at) => match raw_string_end(&chars, at) {
                Some(end) => out.literal(&chars, at, end),
                None => out.code(&chars, at, at + 1),
            },
            _ => out.code(&chars, at, at + 1),
        };
    }
    (out.code, out.comments)
}

#[derive(Default)]
struct Separated {
    code: String,
    comments: String,
}

impl Separated {
    fn push(&mut self, chars: &[char], keep_code: bool, keep_comments: bool) {
        for &one in chars {
            let kept = |keep: bool| if keep || one == '\n' { one } else { ' ' };
            self.code.push(kept(keep_code));
            self.comments.push(kept(keep_comments));
        }
    }

    fn code(&mut self, chars: &[char], start: usize, end: usize) -> usize {
        self.push(&chars[start..end], true, false);
        end
    }

    fn comment(&mut self, chars: &[char], start: usize, end: usize) -> usize {
        self.push(&chars[start..end], false, true);
        end
    }

    fn literal(&mut self, chars: &[char], start: usize, end: usize) -> usize {
        self.push(&chars[start..end], false, false);
        end
    }
}

/// Whether the letter at `at` continues an identifier. A prefix of a literal (`br"…"`) does not count.
fn follows_identifier(chars: &[char], at: usize) -> bool {
    let is_name = |back: usize| at.checked_sub(back).is_some_and(|index| is_identifier_char(chars[index]));
    let after_prefix = matches!(at.checked_sub(1).map(|index| chars[index]), Some('b' | 'c')) && !is_name(2);
    is_name(1) && !after_prefix
}

fn is_identifier_char(one: char) -> bool {
    one.is_alphanumeric() || one == '_'
}

fn line_end(chars: &[char], start: usize) -> usize {
    chars[start..].iter().position(|one| *one == '\n').map_or(chars.len(), |len| start + len)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(chars: &[char], start: usize) -> Option<usize> {
    match (chars.get(start + 1)?, chars.get(start + 2)?) {
        ('\\', _) => {
            let close = chars[start + 3..].iter().position(|one| *one == '\'')?;
            Some(start + 3 + close + 1)
        }
        (_, '\'') => Some(start + 3),
        _ => None,
    }
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|one| **one == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|one| **one == '#').count() == hashes
    };
    let close = (open + 1..chars.len()).find(|at| closes(*at));
    Some(close.map_or(chars.len(), |at| at + 1 + hashes))
}

/// Blanks every item that stands under `#[cfg(test)]`.
fn without_test_items(code: &str) -> String {
    let compact: Vec<(usize, char)> = code.char_indices().filter(|(_, one)| !one.is_whitespace()).collect();
    let marker: Vec<char> = "#[cfg(test)]".chars().collect();
    let mut blanked: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at + marker.len() <= compact.len() {
        if compact[at..at + marker.len()].iter().map(|(_, one)| one).eq(marker.iter()) {
            let end = item_end(&compact, at + marker.len());
            blanked.push((compact[at].0, end));
            while at < compact.len() && compact[at].0 < end {
                at += 1;
            }
        } else {
            at += 1;
        }
    }
    let is_blanked = |index: usize| blanked.iter().any(|(start, end)| (*start..*end).contains(&index));
    let kept = |(index, one): (usize, char)| if one != '\n' && is_blanked(index) { ' ' } else { one };
    code.char_indices().map(kept).collect()
}

/// Where the item that begins at `at` ends in the code: after its `;`, or after its braces.
fn item_end(compact: &[(usize, char)], at: usize) -> usize {
    let is_use = compact[at..].iter().take(3).map(|(_, one)| *one).eq("use".chars());
    let mut depth = 0usize;
    for (index, one) in &compact[at..] {
        match one {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && !is_use {
                    return index + 1;
                }
            }
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    usize::MAX
}

/// The tokens of code.
pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = if is_identifier_char(first) {
                rest.find(|one| !is_identifier_char(one)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, after) = rest.split_at(len);
            tokens.push(Token { line: number + 1, text });
            rest = after.trim_start();
        }
    }
    tokens
}

/// All paths in code; `std::{fs, io}` is two.
pub fn paths<'a>(tokens: &[Token<'a>]) -> Vec<CodePath<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let after_separator = at > 0 && matches!(tokens[at - 1].text, "::" | ".");
        if is_name(tokens[at].text) && !after_separator {
            at = read_path(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.chars().next().is_some_and(|one| one.is_alphabetic() || one == '_')
}

/// Reads the path at `at`, below `prefix`; answers where it ends.
fn read_path<'a>(
    tokens: &[Token<'a>],
    at: usize,
    prefix: &[&'a str],
    found: &mut Vec<CodePath<'a>>,
) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let (line, token) = (tokens[at].line, at);
    let mut segments = prefix.to_vec();
    let mut at = at;
    loop {
        segments.push(text(at));
        at += 1;
        if text(at) != "::" {
            break;
        }
        if text(at + 1) == "{" {
            return read_group(tokens, at + 2, &segments, found);
        }
        if !is_name(text(at + 1)) && text(at + 1) != "*" {
            break;
        }
        at += 1;
    }
    if text(at) == "!" && matches!(text(at + 1), "(" | "[" | "{") {
        segments.push("!");
        at += 1;
    }
    found.push(CodePath { line, token, segments });
    at
}

/// Reads the paths of a use group from after its brace on; answers where it ends.
fn read_group<'a>(
    tokens: &[Token<'a>],
    at: usize,
    prefix: &[&'a str],
    found: &mut Vec<CodePath<'a>>,
) -> usize {
    let mut at = at;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "}" => return at + 1,
            "as" => at += 2,
            name if is_name(name) || name == "*" => at = read_path(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\" 'i' '\\'' 'x: r#\"j\"k\"# br\"l\" m";
        let source = Source::new("x.rs", text);
        let code: Vec<&str> = tokens(&source.code).iter().map(|token| token.text).collect();
        assert_eq!(code, ["a", "f", "'", "x", ":", "b", "m"]);
        let comments: Vec<&str> = source.comments.split_whitespace().collect();
        assert_eq!(comments, ["//", "b", "/*", "c", "/*", "d", "*/", "e", "*/"]);
        assert_eq!(source.code.lines().count(), text.lines().count());
    }

    #[test]
    fn test_items_are_left_out() {
        let text = "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\nuse c::{d, e};\nf();\n#[cfg(test)]\nmod g { h(); { i() } }\nmod j;";
        let source = Source::new("x.rs", text).without_tests();
        let names: Vec<&str> =
            tokens(&source.code).iter().map(|token| token.text).filter(|text| is_name(text)).collect();
        assert_eq!(names, ["mod", "a", "f", "mod", "j"]);
    }

    #[test]
    fn use_groups_are_taken_apart() {
        let code = "use std::{fs, io::{self, Read as R}}; let x = a::b::<c::d>(); println!(); y != z.spawn()";
        let found = paths(&tokens(code));
        let texts: Vec<String> = found.iter().map(|path| path.segments.join("::")).collect();
        for expected in ["std::fs", "std::io::self", "std::io::Read", "a::b", "c::d", "println::!", "y", "z"]
        {
            assert!(texts.iter().any(|text| text == expected), "{expected} in {texts:?}");
        }
        assert!(!texts.iter().any(|text| text.contains("spawn")), "{texts:?}");
    }
}
