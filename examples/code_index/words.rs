//! What a word is: letters, digits and underscores, and everything beyond ASCII, in lower case.

use std::collections::HashMap;

const WORD_BYTES: std::ops::RangeInclusive<usize> = 2..=64;

/// The words of a text with how often each occurs.
pub fn count_words(text: &[u8]) -> HashMap<Vec<u8>, u32> {
    let mut counts: HashMap<Vec<u8>, u32> = HashMap::new();
    for word in text.split(|byte| !is_word_byte(*byte)).filter(|word| WORD_BYTES.contains(&word.len())) {
        let word = normalized(word);
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// The form in which a word is stored and looked up.
pub fn normalized(word: &[u8]) -> Vec<u8> {
    word.to_ascii_lowercase()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
