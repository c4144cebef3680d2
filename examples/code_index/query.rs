//! Answering: files that contain the words, ranked by how many of them they contain, then by tf-idf weight
//! (Salton and Buckley 1988): words that occur often in the file and in few others count most.

use crate::store::{Index, Outcome, decode_count, path_of, split_word_key, word_prefix};
use crate::words::normalized;
use std::collections::HashMap;
use std::fmt;

/// A file that contains at least one of the words.
#[derive(Debug)]
pub struct Hit {
    path: String,
    matched: usize,
    occurrences: u64,
    score: f64,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  ({} words, {} occurrences, score {:.3})",
            self.path, self.matched, self.occurrences, self.score
        )
    }
}

#[derive(Default)]
struct Weight {
    matched: usize,
    occurrences: u64,
    score: f64,
}

/// All files that contain at least one of the words, best first.
pub fn query(index: &Index, words: &[String]) -> Outcome<Vec<Hit>> {
    // One moment for all of it: a load may be running on another thread.
    let snapshot = index.db.snapshot();
    let files = index.next_id()? as f64;
    let mut weights: HashMap<u64, Weight> = HashMap::new();
    for word in words {
        let mut counts = Vec::new();
        for item in snapshot.prefix_in(&index.words, word_prefix(&normalized(word.as_bytes()))) {
            let (key, count) = item?;
            counts.push((split_word_key(&key)?.1, decode_count(&count)?));
        }
        let rarity = (1.0 + files / (counts.len().max(1) as f64)).ln();
        for (id, count) in counts {
            let weight = weights.entry(id).or_default();
            weight.matched += 1;
            weight.occurrences += u64::from(count);
            weight.score += (1.0 + f64::from(count).ln()) * rarity;
        }
    }
    let mut hits = Vec::with_capacity(weights.len());
    for (id, weight) in weights {
        let Weight { matched, occurrences, score } = weight;
        hits.push(Hit { path: path_of(index, id)?, matched, occurrences, score });
    }
    hits.sort_by(|a, b| {
        let best_first = (b.matched, b.score).partial_cmp(&(a.matched, a.score));
        best_first.unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.path.cmp(&b.path))
    });
    Ok(hits)
}
