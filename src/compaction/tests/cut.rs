//! Cuts: keys of one byte per letter, ten bytes a key.

use super::tree;
use crate::compaction::cut::Cutter;

/// Writes the keys `a` to `z`, `size` bytes each, and shows where tables end.
fn check(tree_text: &str, target: u64, span_max: u64, expect: &str) {
    let tree = tree(tree_text);
    let mut cutter = Cutter::new(&tree, 1, target, span_max * 5);
    let mut found = String::new();
    let mut bytes = 0;
    for key in b'a'..=b'z' {
        if cutter.cuts_before(&[key], bytes) {
            found.push('|');
            bytes = 0;
        }
        found.push(char::from(key));
        bytes += 10;
    }
    assert_eq!(found, expect);
}

#[test]
fn without_guards_the_target_decides() {
    check("", 80, 1000, "abcdefgh|ijklmnop|qrstuvwx|yz");
    check("L1#1 1[a-z]", 80, 1000, "abcdefgh|ijklmnop|qrstuvwx|yz");
    check("", 1, 1000, "a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p|q|r|s|t|u|v|w|x|y|z");
}

#[test]
fn tables_end_where_guards_end() {
    // At a guard from three quarters of the target on, at the latest at five quarters.
    check("L2#1 1[a-c] 2[d-f] 3[g-i] 4[j-l] 5[m-o] 6[p-z]", 80, 1000, "abcdef|ghijkl|mnopqrstuv|wxyz");
    // Guards are the oldest run of the next level that has any; behind the last, the target decides.
    check("L2#2 7[a-h]\nL2#1 1[a-g]\nL3#1 8[a-b]", 80, 1000, "abcdefg|hijklmno|pqrstuvw|xyz");
}

#[test]
fn a_table_that_spans_many_guards_ends_early() {
    let guards = "L2#1 1[a-b]50 2[c-d]50 3[e-f]50 4[g-h]50 5[i-j]50 6[k-z]50";
    check(guards, 160, 100, "abcd|efgh|ijklmnopqrstuvwxyz");
    // But never below an eighth of the target.
    check(guards, 320, 50, "abcd|efgh|ijklmnopqrstuvwxyz");
    // What lies before the first key does not count.
    let tree = tree("L2#1 1[a-b]50 2[c-d]50 3[e-f]50 4[g-h]50");
    let mut cutter = Cutter::new(&tree, 1, 160, 500);
    assert!(!cutter.cuts_before(b"g", 0));
    assert!(!cutter.cuts_before(b"i", 100));
}
