//! Policies as tables: a tree in, the task out.

use super::{running, shape, tree};
use crate::compaction::{Shape, Style, check_task, pick};

fn check(shape: &Shape, tree_text: &str, running_text: &str, expect: &str) {
    let tree = tree(tree_text);
    let running = running(&tree, running_text);
    let task = pick(&tree, shape, &running);
    if let Some(task) = &task {
        check_task(&tree, &running, task).unwrap();
    }
    let found = task.map_or("none".to_string(), |task| task.to_string());
    assert_eq!(found, expect, "\nfor the tree\n{tree_text}");
}

fn lazy(tree: &str, running: &str, expect: &str) {
    check(&shape(Style::LazyLeveling), tree, running, expect);
}

fn leveled(tree: &str, running: &str, expect: &str) {
    check(&shape(Style::Leveled), tree, running, expect);
}

fn tiered(tree: &str, running: &str, expect: &str) {
    check(&shape(Style::Tiered), tree, running, expect);
}

#[test]
fn lazy_level0_waits_for_its_trigger() {
    lazy("", "", "none");
    lazy("L0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]", "", "none");
}

#[test]
fn lazy_level0_makes_the_first_last_level() {
    lazy(
        "L0#4 4[a-z]\nL0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]",
        "",
        "merge L0#4{4} L0#3{3} L0#2{2} L0#1{1} -> L1 new (runs in level 0)",
    );
}

#[test]
fn lazy_merges_into_the_run_of_the_last_level() {
    lazy(
        "L0#9 9[a-m]\nL0#8 8[a-m]\nL0#7 7[a-m]\nL0#6 6[a-m]\nL1#1 1[a-c] 2[d-h] 3[k-p] 4[q-z]",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} L1#1{1 2 3} -> L1#1 (runs in level 0)",
    );
}

#[test]
fn lazy_moves_what_overlaps_nothing_as_deep_as_it_goes() {
    // The oldest run first; the last level holds more than level 1 could.
    lazy(
        "L0#9 9[m-n]\nL0#8 8[k-l]\nL0#7 7[g-h]\nL0#6 6[e-f]\nL2#1 1[a-d]200",
        "",
        "move L0#6{6} -> L2#1 (runs in level 0)",
    );
    // Deletes are written again where they can be dropped.
    lazy(
        "L0#9 9[m-n]\nL0#8 8[k-l]\nL0#7 7[g-h]\nL0#6 6[e-f]10d1\nL1#1 1[a-d]",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L1#1 (runs in level 0)",
    );
}

#[test]
fn lazy_tiers_above_the_last_level() {
    // Level 1 is needed (the last level is larger than its capacity) and takes one more run.
    let last = "L2#1 1[a-m]200 2[n-z]200";
    lazy(
        &format!("L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL1#5 5[a-z]40\n{last}"),
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L1 new (runs in level 0)",
    );
    // Full at four runs over one key.
    lazy(
        &format!("L1#8 8[a-z]40\nL1#7 7[a-z]40\nL1#6 6[a-z]40\nL1#5 5[a-z]40\n{last}"),
        "",
        "merge L1#8{8} L1#7{7} L1#6{6} L1#5{5} L2#1{1 2} -> L2#1 (the level is full)",
    );
    // Runs side by side are not runs over one key.
    lazy(&format!("L1#8 8[a-c]\nL1#7 7[d-f]\nL1#6 6[g-i]\nL1#5 5[k-z]\n{last}"), "", "none");
}

#[test]
fn lazy_splits_a_large_push_at_table_bounds() {
    // 250 bytes at most: both runs of level 1 are cut where their tables and the last level's end.
    lazy(
        "L1#8 8[a-m]90 9[n-z]90\nL1#7 6[a-m]30 7[n-z]30\nL2#1 1[a-f]60 2[g-m]60 3[n-s]60 4[t-z]60",
        "",
        "merge L1#8{8} L1#7{6} L2#1{1 2} -> L2#1 (the level is full)",
    );
    // The other half runs beside it.
    lazy(
        "L1#8 8[a-m]90 9[n-z]90\nL1#7 6[a-m]30 7[n-z]90\nL2#1 1[a-f]60 2[g-m]60 3[n-s]60 4[t-z]60",
        "8 6 1 2 -> L2#1",
        "merge L1#8{9} L1#7{7} L2#1{3 4} -> L2#1 (the level is full)",
    );
}

#[test]
fn lazy_deepens_a_last_level_that_has_outgrown_its_capacity() {
    let grown = "L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL1#1 1[a-m]100 2[n-z]61";
    lazy(grown, "", "move L1#1{1 2} -> L2 new (the last level has outgrown its capacity)");
    // While a compaction reads it, nothing more is pushed into it.
    lazy(grown, "2 -> L1#1", "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L0#6 (small runs of one level)");
    let side = "L0#9 9[a-c]\nL0#8 8[a-c]\nL0#7 7[a-c]\nL0#6 6[a-c]\nL1#1 1[a-m]100 2[n-z]61";
    lazy(side, "2 -> L1#1", "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L0#6 (small runs of one level)");
    // Nor while one writes to it.
    lazy("L0#9 9[n-p]\nL1#1 1[a-m]100 2[q-z]61", "9 -> L1#1", "none");
    lazy("L6#1 1[a-z]9000000", "", "none");
}

#[test]
fn lazy_works_on_both_sides_of_a_busy_range() {
    lazy(
        "L1#9 9[a-c]20 8[g-h]40 7[p-q]60\nL1#6 6[a-c]20 5[g-h]40 4[p-q]60\nL2#1 1[a-d]100 2[f-i]100 3[o-r]100",
        "8 5 2 -> L2#1",
        "merge L1#9{7} L1#6{4} L2#1{3} -> L2#1 (the level is full)",
    );
}

#[test]
fn lazy_leaves_what_lies_alone() {
    // It does not fit into one compaction, so what is merged with nothing yet waits.
    lazy(
        "L1#9 9[a-f]200 8[m-p]60 7[q-z]60\nL1#6 6[m-p]60 5[q-z]60\nL1#4 4[m-p]60 3[q-z]60\n\
         L1#2 2[m-p]60 10[q-z]60\nL3#1 1[a-m]800 11[n-z]800",
        "",
        "merge L1#9{8 7} L1#6{6 5} L1#4{4 3} L1#2{2 10} -> L2 new (the level is full)",
    );
}

#[test]
fn lazy_continues_a_run_that_it_touches_at_the_edge() {
    // The first half of level 1 went down as run 9 of level 2; now the second half follows.
    let last = "L3#1 1[a-m]800 2[n-z]800";
    lazy(
        &format!(
            "L1#8 8[k-z]60\nL1#7 7[m-z]60\nL1#6 6[m-z]60\nL1#5 5[m-z]60\nL2#9 3[a-j]200 4[k-n]40\n{last}"
        ),
        "",
        "merge L1#8{8} L1#7{7} L1#6{6} L1#5{5} L2#9{4} -> L2#9 (the level is full)",
    );
    lazy(
        &format!(
            "L1#8 8[k-z]60\nL1#7 7[m-z]60\nL1#6 6[m-z]60\nL1#5 5[m-z]60\nL2#9 3[a-j]200 4[k-n]80\n{last}"
        ),
        "",
        "merge L1#8{8} L1#7{7} L1#6{6} L1#5{5} -> L2 new (the level is full)",
    );
}

#[test]
fn lazy_merges_small_runs_in_place_when_the_last_level_is_too_dear() {
    lazy(
        "L0#9 9[a-z]1\nL0#8 8[a-z]1\nL0#7 7[a-z]1\nL0#6 6[a-z]20\nL1#1 1[a-z]150",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} -> L0#7 (small runs of one level)",
    );
    lazy(
        "L0#9 9[a-z]10\nL0#8 8[a-z]10\nL0#7 7[a-z]10\nL0#6 6[a-z]10\nL1#1 1[a-z]150",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} L1#1{1} -> L1#1 (runs in level 0)",
    );
}

#[test]
fn lazy_relieves_level_0_while_the_level_below_is_busy() {
    lazy(
        "L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL0#5 5[a-z]\nL1#1 1[a-z]40",
        "5 1 -> L1#1",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L0#6 (small runs of one level)",
    );
}

#[test]
fn lazy_unites_a_last_level_of_several_runs() {
    lazy("L1#3 3[a-f]10\nL1#2 1[c-g] 2[m-z]", "", "merge L1#3{3} L1#2{1} -> L1#2 (one run in this level)");
    lazy("L1#3 3[h-k]10\nL1#2 1[c-g] 2[m-z]", "", "move L1#3{3} -> L1#2 (one run in this level)");
}

#[test]
fn leveled_begins_at_the_bottom() {
    leveled(
        "L0#4 4[a-z]\nL0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]",
        "",
        "merge L0#4{4} L0#3{3} L0#2{2} L0#1{1} -> L6 new (runs in level 0)",
    );
    // 200 in the last level: level 5 should have 50, more than the base, so level 4 with 12 is the base.
    leveled(
        "L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL5#3 3[a-z]40\nL6#1 1[a-z]200",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L4 new (runs in level 0)",
    );
}

#[test]
fn leveled_pushes_the_table_that_overlaps_least() {
    // Level 5 may have 40 (400 in the last level make 100, more than the base: level 4 is next).
    let last = "L6#1 11[a-c]100 12[d-f]40 13[g-k]100 14[l-z]100";
    leveled(
        &format!("L5#2 1[a-b]40 2[d-e]40 3[g-z]40\n{last}"),
        "",
        "merge L5#2{2} L6#1{12} -> L6#1 (the level is over its size)",
    );
    leveled(&format!("L5#2 1[a-b]40 2[d-e]40 3[g-z]40\n{last}"), "2 12 -> L6#1", "none");
    // Deletes count double.
    leveled(
        &format!("L5#2 1[a-b]40d40 2[d-e]15 3[g-z]70\n{last}"),
        "",
        "merge L5#2{1} L6#1{11} -> L6#1 (the level is over its size)",
    );
    // Neighbours under the same tables come along.
    leveled(
        &format!("L5#2 1[a-b]20 2[d-d]40 4[e-e]40 3[g-z]20\n{last}"),
        "",
        "merge L5#2{2 4} L6#1{12} -> L6#1 (the level is over its size)",
    );
}

#[test]
fn leveled_moves_a_table_without_overlap() {
    leveled(
        "L5#2 1[a-b]40 2[p-q]80\nL6#1 11[a-c]100 12[d-f]40 13[g-k]100 14[r-z]100",
        "",
        "move L5#2{2} -> L6#1 (the level is over its size)",
    );
}

#[test]
fn leveled_unites_levels_of_several_runs() {
    leveled(
        "L3#5 5[a-m]\nL3#4 4[a-m] 6[n-z]\nL6#1 1[a-z]4000",
        "",
        "merge L3#5{5} L3#4{4} -> L3#4 (one run in this level)",
    );
}

#[test]
fn tiered_merges_runs_of_similar_size() {
    tiered(
        "L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL1#5 5[a-z]100",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L1 new (runs in level 0)",
    );
    // The run below is no larger than those above together.
    tiered(
        "L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL1#5 5[a-z]40\nL1#4 4[a-z]200",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} L1#5{5} -> L1#5 (runs in level 0)",
    );
    // No two are similar: all of level 0.
    tiered(
        "L0#9 9[a-z]1\nL0#8 8[a-z]2\nL0#7 7[a-z]4\nL0#6 6[a-z]8\nL1#4 4[a-z]200",
        "",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L1 new (runs in level 0)",
    );
}

#[test]
fn tiered_bounds_the_number_of_runs_and_the_space() {
    tiered(
        "L0#9 9[a-z]2\nL1#8 8[a-z]4\nL1#7 7[a-z]8\nL1#6 6[a-z]16\nL1#5 5[a-z]100",
        "",
        "merge L0#9{9} L1#8{8} -> L1#8 (number of runs)",
    );
    tiered(
        "L0#9 9[a-z]60\nL1#8 8[a-z]60\nL1#7 7[a-z]60\nL1#6 6[a-z]60\nL1#5 5[a-z]100",
        "",
        "merge L0#9{9} L1#8{8} L1#7{7} L1#6{6} L1#5{5} -> L1#5 (space)",
    );
}

#[test]
fn tiered_moves_runs_that_do_not_overlap_together() {
    tiered(
        "L0#9 9[m-n]\nL0#8 8[k-l]\nL0#7 7[g-h]\nL0#6 6[e-f]\nL1#1 1[a-d]200",
        "",
        "move L0#6{6} -> L1#1 (runs in level 0)",
    );
}

#[test]
fn tiered_leaves_busy_runs_alone() {
    tiered(
        "L0#9 9[a-z]\nL0#8 8[a-z]\nL0#7 7[a-z]\nL0#6 6[a-z]\nL0#5 5[a-z]\nL1#4 4[a-z]100",
        "5 -> L1 new",
        "merge L0#9{9} L0#8{8} L0#7{7} L0#6{6} -> L0#6 (runs in level 0)",
    );
    // A run that another compaction writes to is busy, even where none of its tables is.
    tiered(
        "L0#9 9[m-n]\nL1#8 8[a-z]\nL1#7 7[a-z]\nL1#6 6[a-c]\nL1#5 5[a-c] 4[x-z]",
        "9 -> L1#5\n8 7 -> L1#7",
        "none",
    );
}

#[test]
fn fifo_drops_the_oldest() {
    let fifo = Shape { fifo_bytes_max: 25, ..shape(Style::Fifo) };
    check(&fifo, "L0#3 3[a-z]\nL0#2 2[a-z]", "", "none");
    check(
        &fifo,
        "L0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]",
        "",
        "drop L0#1{1} (the oldest tables are over the size limit)",
    );
    check(
        &fifo,
        "L0#3 3[a-z]\nL0#2 2[a-z]\nL2#1 1[a-m]20 4[n-z]20",
        "",
        "drop L2#1{1 4} (the oldest tables are over the size limit)",
    );
}

#[test]
fn fifo_gathers_small_runs() {
    let fifo = shape(Style::Fifo);
    check(
        &fifo,
        "L0#5 5[a-z]2\nL0#4 4[a-z]2\nL0#3 3[a-z]2\nL0#2 2[a-z]2\nL0#1 1[a-z]",
        "",
        "merge L0#5{5} L0#4{4} L0#3{3} L0#2{2} -> L0#2 (small runs)",
    );
}
