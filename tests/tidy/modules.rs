//! Which files make up the library, and which module may use which.
//!
//! Every module has a rank and uses only lower ones, so there are no cycles. ARCHITECTURE.md explains the table.

use crate::Complaint;
use crate::source::{Source, Token, paths, tokens};
use std::collections::BTreeSet;

/// Modules and what each may use, lowest first.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("base", &[]),
    ("env", &["base"]),
    ("record", &["base"]),
    ("merge", &["base"]),
    ("cache", &["base"]),
    ("memtable", &["base"]),
    ("wal", &["base", "env", "record"]),
    ("sstable", &["base", "env", "cache"]),
    ("manifest", &["base", "env", "record"]),
    ("compaction", &["base", "env", "merge", "sstable", "manifest"]),
    (
        "engine",
        &["base", "env", "record", "merge", "cache", "memtable", "wal", "sstable", "manifest", "compaction"],
    ),
    ("mvcc", &["base", "env", "engine"]),
];

/// The files of one crate.
#[derive(Debug, Default)]
pub struct Tree {
    /// Reachable without `#[cfg(test)]`, test items taken out.
    pub shipped: Vec<Source>,
    /// Paths of all that are reachable.
    pub reachable: BTreeSet<String>,
}

/// Follows `mod` declarations from the root of a crate.
pub fn tree(files: &[Source], crate_root: &str) -> Tree {
    let mut tree = Tree::default();
    let mut pending = vec![(crate_root.to_string(), true)];
    while let Some((path, shipped)) = pending.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        if !tree.reachable.insert(path.clone()) {
            continue;
        }
        let without_tests = file.without_tests();
        let all = declared(file);
        let kept = declared(&without_tests);
        for name in all {
            let child = child_path(files, &path, &name);
            pending.extend(child.map(|child| (child, shipped && kept.contains(&name))));
        }
        if shipped {
            tree.shipped.push(without_tests);
        }
    }
    tree.shipped.sort_by(|left, right| left.path.cmp(&right.path));
    tree
}

/// Names in `mod name;`.
fn declared(file: &Source) -> BTreeSet<String> {
    let tokens = tokens(&file.code);
    let names = tokens.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";");
    names.map(|three| three[1].text.to_string()).collect()
}

/// The file of a module declared in the file at `path`.
fn child_path(files: &[Source], path: &str, name: &str) -> Option<String> {
    let stem = path.trim_end_matches(".rs");
    let (dir, file) = stem.rsplit_once('/')?;
    let dir = if matches!(file, "mod" | "lib" | "main") { dir } else { stem };
    let candidates = [format!("{dir}/{name}.rs"), format!("{dir}/{name}/mod.rs")];
    candidates.into_iter().find(|path| files.iter().any(|file| file.path == *path))
}

/// Files beside a crate's root that no `mod` leads to.
pub fn check_dead_files(files: &[Source], crate_root: &str) -> Vec<Complaint> {
    let tree = tree(files, crate_root);
    let folder = crate_root.rsplit_once('/').map_or("", |(folder, _)| folder);
    let beside = files.iter().filter(|file| file.path.starts_with(&format!("{folder}/")));
    let dead = beside.filter(|file| !tree.reachable.contains(&file.path));
    dead.map(|file| format!("{}: no `mod` leads to this file from {crate_root}", file.path)).collect()
}

/// The top-level module that a file belongs to, and how deep below the crate's root its code stands.
fn place(path: &str) -> (&str, usize) {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let parts: Vec<&str> = inner.split('/').collect();
    (parts[0], parts.len())
}

/// Uses of modules that the file's own may not use.
pub fn check_ranks(file: &Source) -> Vec<Complaint> {
    let (module, depth) = place(&file.path);
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}: module `{module}` has no rank in tests/tidy/modules.rs", file.path)];
    };
    let used = top_level_uses(file, depth).into_iter();
    let wrong = used.filter(|(_, used)| used != module && !allowed.contains(&used.as_str()));
    wrong
        .map(|(line, used)| {
            let known = ALLOWED.iter().any(|(name, _)| *name == used);
            let why =
                if known { "which is not below it" } else { "which is no module: use the path of its own" };
            format!("{}:{line}: `{module}` uses `crate::{used}`, {why}", file.path)
        })
        .collect()
}

/// First segments of paths from the crate's root, however they are written.
fn top_level_uses(file: &Source, depth: usize) -> Vec<(usize, String)> {
    let tokens = tokens(&file.code);
    let mut uses = Vec::new();
    for path in paths(&tokens) {
        let climbs = path.segments.iter().take_while(|segment| **segment == "super").count();
        let name = match path.segments.first() {
            Some(&"crate") => path.segments.get(1),
            Some(&"super") if climbs >= depth && climbs >= depth + inline_depth(&tokens[..path.token]) => {
                path.segments.get(climbs)
            }
            _ => None,
        };
        uses.extend(name.map(|name| (path.line, name.to_string())));
    }
    uses
}

/// Inline modules that are open after these tokens.
fn inline_depth(tokens: &[Token<'_>]) -> usize {
    let mut open: Vec<bool> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => open.push(index >= 2 && tokens[index - 2].text == "mod"),
            "}" => drop(open.pop()),
            _ => {}
        }
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

/// The table itself: it names only modules that exist, and each uses only what stands before it.
pub fn check_table(library: &[Source]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, (module, allowed)) in ALLOWED.iter().enumerate() {
        if !library.iter().any(|file| place(&file.path).0 == *module) {
            complaints.push(format!("tests/tidy/modules.rs: there is no module `{module}`"));
        }
        let before = &ALLOWED[..index];
        let upwards = allowed.iter().filter(|used| !before.iter().any(|(name, _)| name == *used));
        complaints.extend(upwards.map(|used| format!("tests/tidy/modules.rs: `{module}` before `{used}`")));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check_ranks(&Source::new(path, text))
    }

    #[test]
    fn a_use_of_a_higher_module_is_found_however_it_is_written() {
        for (path, text) in [
            ("src/wal/log.rs", "use crate::engine::Db;"),
            ("src/wal/log.rs", "use crate::{base::error::Error, engine::Db};"),
            ("src/wal/log.rs", "fn f() { crate::engine::open(); }"),
            ("src/wal/log.rs", "use super::super::engine::Db;"),
            ("src/wal/mod.rs", "use super::engine::Db;"),
            ("src/wal/mod.rs", "mod a { use super::super::engine::Db; }"),
            ("src/base/mod.rs", "use crate::env::Env;"),
            ("src/merge/mod.rs", "use crate::memtable::Memtable;"),
            ("src/wal/log.rs", "use crate::Slice;"),
            ("src/brandnew/mod.rs", ""),
        ] {
            assert_eq!(complaints(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn uses_of_lower_modules_and_of_the_own_one_pass() {
        for (path, text) in [
            ("src/wal/log.rs", "use crate::{base::error::Error, env::Env, record, wal::batch};"),
            ("src/sstable/block/build.rs", "use super::super::bytes::Extent; use super::Block;"),
            ("src/engine/mod.rs", "mod a { use super::b; } // crate::nowhere\nlet s = \"crate::nowhere\";"),
            ("src/lib.rs", "use crate::engine::Db;"),
            ("src/base/sync.rs", "pub(crate) fn f() {}"),
        ] {
            assert_eq!(complaints(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn test_files_are_not_shipped_and_dead_files_are_found() {
        let files = [
            Source::new("src/lib.rs", "mod a; #[cfg(test)] mod only;"),
            Source::new(
                "src/a/mod.rs",
                "mod b; #[cfg(test)] mod tests; #[cfg(test)] mod inline { fn f() {} }",
            ),
            Source::new("src/a/b.rs", "mod c;"),
            Source::new("src/a/b/c.rs", ""),
            Source::new("src/a/tests.rs", "mod deep;"),
            Source::new("src/a/tests/deep.rs", ""),
            Source::new("src/only.rs", ""),
            Source::new("src/a/forgotten.rs", ""),
        ];
        let tree = tree(&files, "src/lib.rs");
        let shipped: Vec<&str> = tree.shipped.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(shipped, ["src/a/b.rs", "src/a/b/c.rs", "src/a/mod.rs", "src/lib.rs"]);
        let dead = check_dead_files(&files, "src/lib.rs");
        assert_eq!(dead.len(), 1, "{dead:?}");
        assert!(dead[0].starts_with("src/a/forgotten.rs"), "{dead:?}");
    }

    #[test]
    fn a_module_of_the_table_that_is_gone_is_found() {
        let library = [Source::new("src/base/mod.rs", "")];
        assert_eq!(check_table(&library).len(), ALLOWED.len() - 1);
    }
}
