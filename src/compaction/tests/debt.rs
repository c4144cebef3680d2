//! Debt: nothing when in shape, more with every run.

use super::{shape, tree};
use crate::compaction::{Style, debt};

fn check(style: Style, tree_text: &str, bytes: u64, l0_runs: u32, overfull: f64) {
    let debt = debt(&tree(tree_text), &shape(style));
    assert_eq!((debt.bytes, debt.l0_runs), (bytes, l0_runs), "{tree_text}");
    assert!((debt.overfull - overfull).abs() < 1e-9, "{} for {tree_text}", debt.overfull);
}

#[test]
fn a_tree_in_shape_owes_nothing() {
    for style in [Style::LazyLeveling, Style::Leveled, Style::Tiered] {
        check(style, "", 0, 0, 0.0);
        check(style, "L0#2 2[a-z]\nL0#1 1[a-z]", 0, 2, 0.5);
    }
    check(Style::LazyLeveling, "L1#3 3[a-z]\nL1#2 2[a-z]\nL2#1 1[a-z]400", 0, 0, 0.5);
}

#[test]
fn lazy_debt_counts_what_is_beyond_the_trigger_and_what_it_rewrites() {
    // One run of four is beyond; the last level is five times level 0, of which the ratio of 4 is counted.
    check(
        Style::LazyLeveling,
        "L0#4 4[a-z]\nL0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]\nL1#0 9[a-z]200",
        50,
        4,
        1.0,
    );
    // Into a tiered level nothing else is rewritten.
    check(
        Style::LazyLeveling,
        "L0#4 4[a-z]\nL0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]\nL1#8 8[a-z]\nL2#0 9[a-z]400",
        10,
        4,
        1.0,
    );
    // What arrives in a full level is pushed on.
    check(
        Style::LazyLeveling,
        "L0#4 4[a-z]\nL0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]\nL1#8 8[a-z]\nL1#7 7[a-z]\nL1#6 6[a-z]\nL1#5 5[a-z]\nL2#0 9[a-z]40",
        10 + 20 * 2,
        4,
        1.0,
    );
    check(Style::LazyLeveling, "L1#2 2[a-z]\nL1#1 1[a-z]", 20, 0, 2.0);
}

#[test]
fn leveled_debt_counts_bytes_over_the_size() {
    // Level 5 is to have a quarter of level 6's 160, which is no more than the base: 40. It has 60.
    check(Style::Leveled, "L5#2 2[a-z]60\nL6#1 1[a-z]160", (20.0 * (1.0 + 160.0 / 60.0)) as u64, 0, 1.5);
}

#[test]
fn fifo_owes_nothing() {
    check(Style::Fifo, "L0#4 4[a-z]\nL0#3 3[a-z]\nL0#2 2[a-z]\nL0#1 1[a-z]", 0, 0, 0.0);
}

#[test]
fn debt_grows_with_every_run() {
    for style in [Style::LazyLeveling, Style::Leveled, Style::Tiered] {
        let mut text = "L1#0 99[a-z]100".to_string();
        let mut last = 0;
        for run in 1..20 {
            text = format!("L0#{run} {run}[a-z]\n{text}");
            let now = debt(&tree(&text), &shape(style)).bytes;
            assert!(now >= last && (run < 5 || now > last), "{style:?} {run}: {now} after {last}");
            last = now;
        }
    }
}
