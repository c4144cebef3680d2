//! Compaction by hand, step by step as text.

use super::{running, shape, tree};
use crate::compaction::{Goal, Manual, Style, check_task, manual};

fn check(tree_text: &str, running_text: &str, span: (&str, &str), expect: &str) {
    let tree = tree(tree_text);
    let running = running(&tree, running_text);
    let bound = |text: &'static str| (!text.is_empty()).then_some(text.as_bytes());
    let (lo, hi) = (span.0.to_string().leak(), span.1.to_string().leak());
    let goal = Goal { lo: bound(lo), hi: bound(hi), seq_max: 1, files_below: 100 };
    let found = match manual(&tree, &shape(Style::LazyLeveling), &running, &goal) {
        Manual::Step(task) => {
            check_task(&tree, &running, &task).unwrap();
            task.to_string()
        }
        Manual::Wait => "wait".to_string(),
        Manual::Done => "done".to_string(),
    };
    assert_eq!(found, expect, "\nfor the tree\n{tree_text}");
}

const ALL: (&str, &str) = ("", "");

#[test]
fn everything_goes_into_one_run() {
    check("", "", ALL, "done");
    check("L0#1 1[a-z]", "", ALL, "move L0#1{1} -> L1 new (by hand)");
    check("L0#1 1[a-z]10d1", "", ALL, "merge L0#1{1} -> L1 new (by hand)");
    check(
        "L0#9 9[a-z]\nL1#8 8[a-m]\nL1#7 7[a-z]\nL2#1 1[a-m] 2[n-z]",
        "",
        ALL,
        "merge L0#9{9} L1#8{8} L1#7{7} L2#1{1 2} -> L2#1 (by hand)",
    );
    check("L2#1 1[a-m] 2[n-z]", "", ALL, "done");
}

#[test]
fn only_the_range_and_what_it_needs_goes_down() {
    let text = "L0#9 9[a-k]\nL1#8 8[a-c] 6[m-p]\nL1#7 7[d-f] 5[t-z]\nL2#1 1[a-b] 2[e-g] 3[n-z]";
    check(text, "", ("h", "i"), "merge L0#9{9} L1#8{8} L1#7{7} L2#1{1 2} -> L2#1 (by hand)");
    check(text, "", ("q", "z"), "merge L1#7{5} L2#1{3} -> L2#1 (by hand)");
    check(text, "", ("q", "s"), "done");
    // An older table that one of them overlaps, and an older one that this overlaps.
    check(
        "L0#9 9[g-k]\nL1#8 8[c-h]\nL1#7 7[a-d]\nL2#1 1[x-z]",
        "",
        ("i", "j"),
        "merge L0#9{9} L1#8{8} L1#7{7} -> L2#1 (by hand)",
    );
}

#[test]
fn deletes_of_the_last_run_are_written_again() {
    check("L2#1 1[a-m]10d1 2[n-p]10d2 3[q-z]", "", ALL, "merge L2#1{1 2} -> L2#1 (by hand)");
    check("L2#1 1[a-m]10d1 2[n-p]10d2 3[q-z]", "", ("n", "z"), "merge L2#1{2} -> L2#1 (by hand)");
    // Written since: no snapshot would have let them go.
    check("L2#1 100[a-m]10d1 101[n-p]10d2", "", ALL, "done");
    // In steps of 250 bytes.
    check("L2#1 1[a-m]200d1 2[n-p]51d2", "", ALL, "merge L2#1{1} -> L2#1 (by hand)");
}

#[test]
fn busy_tables_are_waited_for() {
    check("L0#1 1[a-z]", "1 -> L1 new", ALL, "wait");
    check("L2#1 1[a-m]10d1", "1 -> L2#1", ALL, "wait");
}
