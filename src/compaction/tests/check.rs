//! Every rule of `check_task`, broken.

use super::{running, task, tree};
use crate::compaction::check_task;

fn check(tree_text: &str, running_text: &str, line: &str, expect: &str) {
    let tree = tree(tree_text);
    let running = running(&tree, running_text);
    let found = check_task(&tree, &running, &task(&tree, line));
    let found = found.map_or_else(|error| error.to_string(), |()| "ok".to_string());
    assert!(found.ends_with(expect), "{found:?} instead of {expect:?} for\n{tree_text}");
}

const TREE: &str = "
    L0#9 9[a-f]
    L0#8 8[e-m]
    L1#7 7[b-d] 6[k-p]
    L1#5 5[a-d]
    L2#1 1[a-c] 2[e-g] 3[m-z]";

#[test]
fn sound_tasks_pass() {
    check(TREE, "", "merge 9 8 7 6 5 1 2 3 -> L2#1", "ok");
    check(TREE, "", "merge 8 6 2 3 -> L2#1", "ok");
    check(TREE, "", "merge 9 8 -> L0#9", "ok");
    check(TREE, "", "merge 9 8 -> L0#8", "ok");
    check(TREE, "", "merge 9 8 -> L1 new", "ok");
    check(TREE, "", "move 6 -> L2 new", "ok");
    check(TREE, "", "drop 1 2 3 -> L2#1", "ok");
    check(TREE, "8 6 2 3 -> L2#1", "merge 7 5 1 -> L2#1", "ok");
}

#[test]
fn nothing_is_jumped_over() {
    check(TREE, "", "merge 9 -> L1 new", "table 9 would jump over table 8");
    check(TREE, "", "merge 7 1 -> L2#1", "table 7 would jump over table 5");
    check(TREE, "", "merge 9 8 1 2 3 -> L2#1", "table 9 would jump over table 7");
    check(TREE, "", "drop 5 -> L1#5", "table 5 would jump over table 1");
    // The other way: older data passing newer.
    check(
        "L0#9 9[a-f]\nL0#8 8[a-f]\nL0#7 7[a-f]",
        "",
        "merge 9 7 -> L0#9",
        "table 7 would jump over table 8",
    );
    check("L0#9 9[a-f]\nL0#8 8[a-f]", "", "merge 8 -> L0#9", "outputs would overlap table 9");
    check("L0#9 9[a-c]\nL0#8 8[a-f]\nL0#7 7[e-f]", "", "merge 7 -> L0#9", "table 7 would jump over table 8");
    check("L0#9 9[a-c]\nL0#8 8[a-c]\nL0#7 7[e-f]", "", "merge 7 -> L0#9", "ok");
}

#[test]
fn outputs_fit_their_run() {
    check(TREE, "", "merge 7 5 -> L2#1", "outputs would overlap table 1");
    check(TREE, "", "merge 6 -> L1#5", "ok");
    // The hull counts: an output may span the gap between two inputs.
    check("L1#3 3[a-c] 4[m-z]\nL2#1 1[e-g]", "", "merge 3 4 -> L2#1", "outputs would overlap table 1");
    check(TREE, "", "merge 9 8 -> L0#7", "ok");
}

#[test]
fn running_compactions_are_respected() {
    check(TREE, "6 3 -> L2#1", "merge 8 6 2 3 -> L2#1", "table 6 is busy");
    let gap = "L1#4 4[a-c] 5[p-z]\nL1#3 3[e-g]\nL2#1 1[i-k]";
    check(
        gap,
        "3 -> L2#1",
        "merge 4 5 1 -> L2#1",
        "outputs would overlap those of [merge L1#3{3} -> L2#1 (test)]",
    );
    check(gap, "3 -> L2 new", "merge 4 5 1 -> L2#1", "ok");
}

#[test]
fn places_are_sound() {
    check("L2#1 1[a-c]", "", "merge 1 -> L1 new", "inputs of level 2 would move up to level 1");
    check("L1#1 1[a-c]", "", "merge 1 -> L1 new", "a new run takes inputs of its own level");
    check("L1#2 2[a-c]\nL1#1 1[e-f]", "", "move 2 1 -> L2 new", "a move of several runs");
    check(TREE, "", "move 1 -> L7 new", "there is no level 7");
    check(TREE, "", "merge -> L2 new", "no inputs");
}

#[test]
fn inputs_come_from_the_tree() {
    let other = "L0#9 9[a-g]";
    let task = task(&tree(other), "merge 9 -> L1 new");
    let error = check_task(&tree(TREE), &Default::default(), &task).unwrap_err();
    assert!(error.to_string().ends_with("table 9 is not in its run"), "{error}");

    let mut task = super::task(&tree(TREE), "merge 9 8 -> L1 new");
    task.inputs.reverse();
    let error = check_task(&tree(TREE), &Default::default(), &task).unwrap_err();
    assert!(error.to_string().ends_with("inputs are not ordered from new to old"), "{error}");
}
