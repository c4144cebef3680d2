//! Which tables are rewritten for the garbage in them, as text.

use super::{running, shape};
use crate::compaction::{Reclaim, Running, Style, check_task, reclaim};
use crate::manifest::Tree;

fn check_styled(style: Style, text: &str, running_text: &str, oldest: u64, expect: &str) {
    let tree = Tree::parse(text);
    let running = if running_text.is_empty() { Running::default() } else { running(&tree, running_text) };
    let found = match reclaim(&tree, &shape(style), &running, oldest) {
        Reclaim::Step(task) => {
            check_task(&tree, &running, &task).unwrap();
            task.to_string()
        }
        Reclaim::HeldBack => "held back".to_string(),
        Reclaim::Nothing => "nothing".to_string(),
    };
    assert_eq!(found, expect, "\nfor the tree\n{text}\nat {oldest}");
}

fn check(text: &str, running: &str, oldest: u64, expect: &str) {
    check_styled(Style::LazyLeveling, text, running, oldest, expect);
}

const GONE: &str = "(readers of older versions are gone)";

#[test]
fn a_table_is_rewritten_when_a_quarter_of_it_is_garbage() {
    check("", "", 9, "nothing");
    check("L2 #1: 1:[a..f]@1-5", "", 9, "nothing");
    check("L2 #1: 1:[a..f]@1-5{older=2}", "", 9, "nothing");
    check("L2 #1: 1:[a..f]@1-5{older=3}", "", 9, &format!("merge L2#1{{1}} -> L2#1 {GONE}"));
    check("L0 #1: 1:[a..f]@1-5{older=3}", "", 9, &format!("merge L0#1{{1}} -> L0#1 {GONE}"));
}

#[test]
fn deletes_are_garbage_in_the_oldest_run_only() {
    check("L2 #1: 1:[a..f]@1-5{deletes=3}", "", 9, &format!("merge L2#1{{1}} -> L2#1 {GONE}"));
    check("L1 #2: 2:[a..f]@6-8{deletes=3}\nL2 #1: 1:[a..f]@1-5", "", 9, "nothing");
    check("L2 #2: 2:[a..f]@6-8{deletes=3}\nL2 #1: 1:[a..f]@1-5", "", 9, "nothing");
}

#[test]
fn readers_that_need_it_hold_it_back() {
    let text = "L2 #1: 1:[a..c]@1-5{bytes=100,older=3} 2:[d..f]@1-7{bytes=100,older=3}";
    check(text, "", 4, "held back");
    check(text, "", 5, &format!("merge L2#1{{1}} -> L2#1 {GONE}"));
    check(text, "", 7, "merge L2#1{1 2} -> L2#1 (readers of older versions are gone)");
}

#[test]
fn what_is_being_compacted_is_left_alone() {
    let text = "L1 #2: 3:[a..b]@6-8\nL2 #1: 1:[a..c]@1-5{older=3} 2:[d..f]@1-7{older=3}";
    check(text, "3 1 -> L2#1", 9, "nothing");
    check_styled(Style::Fifo, "L0 #1: 1:[a..f]@1-5{older=3}", "", 9, "nothing");
}
