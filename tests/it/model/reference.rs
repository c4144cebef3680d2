//! The reference: every version of every key, in ordered maps, looked up the slow and obvious way.
//!
//! Knows nothing of the engine. Versions are numbered by commit; a state is "as of this commit".

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

pub type Bytes = Arc<[u8]>;
/// An entry, lent.
pub type Entry<'a> = (&'a [u8], &'a [u8]);

/// The versions of a key: commit and value, `None` for a removal. Ascending.
type Versions = Vec<(u64, Option<Bytes>)>;

/// One keyspace.
#[derive(Debug, Default)]
pub struct Space {
    keys: BTreeMap<Vec<u8>, Versions>,
}

impl Space {
    /// Notes a write of this commit; a later one of the same commit wins. `oldest` is the oldest commit that anybody
    /// still reads at.
    pub fn write(&mut self, key: &[u8], value: Option<Bytes>, commit: u64, oldest: u64) {
        if let Some(versions) = self.keys.get_mut(key) {
            if versions.last().is_some_and(|(last, _)| *last == commit) {
                versions.pop();
            }
            versions.push((commit, value));
            if versions.len() >= 8 {
                forget(versions, oldest);
            }
        } else {
            self.keys.insert(key.to_vec(), vec![(commit, value)]);
        }
    }

    pub fn get(&self, key: &[u8], commit: u64) -> Option<&[u8]> {
        self.keys.get(key).and_then(|versions| at(versions, commit))
    }

    /// The first entry between these bounds.
    pub fn first(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>, commit: u64) -> Option<Entry<'_>> {
        self.entries(lower, upper, commit).next()
    }

    /// The last entry between these bounds.
    pub fn last(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>, commit: u64) -> Option<Entry<'_>> {
        self.entries(lower, upper, commit).next_back()
    }

    /// The entries between these bounds.
    pub fn entries<'a>(
        &'a self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        commit: u64,
    ) -> impl DoubleEndedIterator<Item = Entry<'a>> {
        // The map refuses such ranges by a panic.
        let inverted = match (lower, upper) {
            (Bound::Excluded(lower), Bound::Excluded(upper)) => lower >= upper,
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) => lower > upper,
            _ => false,
        };
        let range = (!inverted).then(|| self.keys.range::<[u8], _>((lower, upper)));
        range
            .into_iter()
            .flatten()
            .filter_map(move |(key, versions)| at(versions, commit).map(|value| (key.as_slice(), value)))
    }

    pub fn count(&self, commit: u64) -> usize {
        self.entries(Bound::Unbounded, Bound::Unbounded, commit).count()
    }
}

fn at(versions: &Versions, commit: u64) -> Option<&[u8]> {
    let after = versions.partition_point(|(number, _)| *number <= commit);
    versions[..after].last()?.1.as_deref()
}

/// Removes what no reader at or after `oldest` sees.
fn forget(versions: &mut Versions, oldest: u64) {
    let after = versions.partition_point(|(number, _)| *number <= oldest);
    versions.drain(..after.saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_answers_as_of_a_commit() {
        let mut space = Space::default();
        for commit in 1..=20u64 {
            let value = (commit % 3 != 0).then(|| Bytes::from(commit.to_le_bytes()));
            space.write(b"k", value, commit, 5);
        }
        assert_eq!(space.get(b"k", 4), None, "forgotten");
        for commit in 5..=20u64 {
            let expect = (commit % 3 != 0).then(|| commit.to_le_bytes());
            assert_eq!(space.get(b"k", commit), expect.as_ref().map(|value| value.as_slice()), "{commit}");
        }
        let all = |lower, upper| space.entries(lower, upper, 20).count();
        assert_eq!(all(Bound::Unbounded, Bound::Unbounded), 1);
        assert_eq!(all(Bound::Excluded(b"k".as_slice()), Bound::Excluded(b"k".as_slice())), 0);
        assert_eq!(all(Bound::Included(b"z".as_slice()), Bound::Included(b"a".as_slice())), 0);
    }
}
