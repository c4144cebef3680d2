//! Damage to one copy never matters; damage to both is refused wherever it can be told from a crash.

use super::world::*;
use super::*;
use crate::base::error::ErrorKind;
use crate::env::MemFs;
use crate::manifest::log::{Limits, Loaded};
use std::sync::Arc;

/// No rewrite within the script, and a short reserved tail.
const PLAIN: Limits = Limits { rewrite_bytes_min: 4000, reserve_bytes: 100 };
const EDITS: usize = 7;

/// The intact disk, the version on it, and the length of the records after each edit.
struct Intact {
    disk: Arc<MemFs>,
    version: Version,
    content: Vec<u8>,
    ends: Vec<usize>,
}

fn intact() -> Intact {
    let mut ends = Vec::new();
    let used = |bytes: Vec<u8>| bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let (env, disk) = written(EDITS, PLAIN, |bytes| ends.push(used(bytes)));
    let version = read(&env).unwrap().unwrap().version;
    let content = bytes(&disk, A);
    Intact { disk, version, content, ends }
}

impl Intact {
    /// Writes the copies and reads them.
    fn with(&self, a: Option<&[u8]>, b: Option<&[u8]>) -> crate::base::error::Result<Option<Loaded>> {
        put_over(&self.disk, A, a);
        put_over(&self.disk, B, b);
        read(&env_of(&self.disk))
    }

    /// One copy in this state, the other intact, both ways round: the newest version is read, healed and complete
    /// in both copies afterwards. `is_visible`: whether the damage must be noticed.
    fn check_one(&self, damaged: Option<&[u8]>, is_visible: bool, what: &str) {
        for damaged_is_b in [false, true] {
            let whole = Some(&self.content[..]);
            let (a, b) = if damaged_is_b { (whole, damaged) } else { (damaged, whole) };
            let loaded = self.with(a, b).unwrap_or_else(|error| panic!("{what}, B {damaged_is_b}: {error}"));
            let mut loaded = loaded.unwrap();
            assert_eq!(loaded.version, self.version, "{what}, B {damaged_is_b}");
            let noticed = loaded.needs_heal() || loaded.dropped_bytes > 0;
            assert_eq!(noticed, is_visible, "{what}, B {damaged_is_b}");
            if is_visible {
                let healed = loaded.manifest.heal(&loaded.version).unwrap();
                assert_eq!(bytes(&self.disk, A), bytes(&self.disk, B));
                let again = read(&env_of(&self.disk)).unwrap().unwrap();
                assert!(again.version == healed && !again.needs_heal() && again.dropped_bytes == 0, "{what}");
                assert_eq!(state(&healed), state(&self.version));
            }
        }
    }
}

fn put_over(disk: &MemFs, path: &str, content: Option<&[u8]>) {
    if content.is_some() || disk.list_files().iter().any(|found| found.to_str() == Some(path)) {
        put(disk, path, content);
    }
}

#[test]
fn any_flipped_byte_of_one_copy_is_healed() {
    let intact = intact();
    for offset in 0..intact.content.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = intact.content.clone();
            bytes[offset] ^= mask;
            intact.check_one(Some(&bytes), true, &format!("byte {offset} ^ {mask}"));
        }
    }
}

#[test]
fn any_cut_of_one_copy_is_healed() {
    let intact = intact();
    let used = *intact.ends.last().unwrap();
    for len in 0..intact.content.len() {
        intact.check_one(Some(&intact.content[..len]), len < used, &format!("cut to {len}"));
        let mut zeros = intact.content.clone();
        zeros[len..].fill(0);
        let is_visible = intact.content[len..used.max(len)].iter().any(|byte| *byte != 0);
        intact.check_one(Some(&zeros), is_visible, &format!("zeros from {len}"));
    }
}

#[test]
fn a_missing_foreign_or_stale_copy_is_healed() {
    let intact = intact();
    intact.check_one(None, true, "missing");
    assert_eq!(intact.with(None, Some(&intact.content)).unwrap().unwrap().damaged.len(), 1);
    assert_eq!(intact.with(Some(&intact.content), None).unwrap().unwrap().damaged.len(), 1);
    intact.check_one(Some(b""), true, "empty");
    intact.check_one(Some(&[0; 5000]), true, "zeros");
    intact.check_one(
        Some(b"MANIFEST of something else, long enough to have a header of sixty-four bytes and more"),
        true,
        "foreign",
    );
    let mut shifted = vec![0; 512];
    shifted.extend_from_slice(&intact.content);
    intact.check_one(Some(&shifted), true, "shifted");
    let mut older = Vec::new();
    written(EDITS, PLAIN, |bytes| older.push(bytes));
    for (index, stale) in older.iter().enumerate().take(EDITS - 1) {
        intact.check_one(Some(stale), true, &format!("as after edit {index}"));
    }
}

/// The same over rewrites: an older copy may have nothing in common with the newer one.
#[test]
fn a_stale_copy_from_before_a_rewrite_is_healed() {
    let mut older = Vec::new();
    let (env, disk) = written(12, TINY, |bytes| older.push(bytes));
    let newest = older.pop().unwrap();
    let expect = read(&env).unwrap().unwrap().version;
    for stale in &older {
        for (a, b) in [(stale, &newest), (&newest, stale)] {
            put(&disk, A, Some(a));
            put(&disk, B, Some(b));
            let loaded = read(&env).unwrap().unwrap();
            assert!(loaded.version == expect && loaded.lagging && loaded.needs_heal());
        }
    }
}

#[test]
fn a_hole_in_the_middle_is_not_a_tail() {
    let intact = intact();
    for pair in intact.ends.windows(2).take(EDITS - 2) {
        let mut bytes = intact.content.clone();
        bytes[pair[0]..pair[1]].fill(0);
        intact.check_one(Some(&bytes), true, &format!("zeros in {pair:?}"));
        let error = intact.with(Some(&bytes), Some(&bytes)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }
}

/// A record that is bad in one copy and proven to have been synced was in the other: that one cannot end before it.
#[test]
fn a_copy_that_ends_before_what_the_damaged_one_proves_is_refused() {
    let intact = intact();
    for (index, pair) in intact.ends.windows(2).enumerate().take(EDITS - 2) {
        let bad_generation = index as u64 + 2;
        let mut bad = intact.content.clone();
        bad[pair[0] + 50] ^= 1;
        for (end, generation) in intact.ends.iter().zip(1u64..) {
            let cut = Some(&intact.content[..*end]);
            for (a, b) in [(Some(&bad[..]), cut), (cut, Some(&bad[..]))] {
                let what = format!("bad {bad_generation}, the other ends at {generation}");
                match intact.with(a, b) {
                    Ok(loaded) if generation >= bad_generation => {
                        assert_eq!(loaded.unwrap().version.generation, generation, "{what}");
                    }
                    Err(error) if generation < bad_generation => {
                        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}");
                    }
                    outcome => panic!("{what}: read {}", outcome.is_ok()),
                }
            }
        }
    }
}

/// Both copies cut, everywhere around every record's end. An older version is only returned when the better copy
/// ends exactly between two records: then nothing tells that it ever held more.
#[test]
fn both_copies_cut_is_refused_or_an_older_version_that_looks_whole() {
    let intact = intact();
    let mut cuts = Vec::new();
    for end in &intact.ends {
        cuts.extend([end - 40, end - 1, *end, end + 1, end + 20].map(|cut| cut.min(intact.content.len())));
    }
    let generation_at = |cut: usize| intact.ends.iter().filter(|end| **end <= cut).count() as u64;
    let is_clean = |cut: usize| {
        let end = intact.ends[..].iter().rev().find(|end| **end <= cut);
        end.is_some_and(|end| intact.content[*end..cut].iter().all(|byte| *byte == 0))
    };
    let (mut refused, mut older) = (0, 0);
    for cut_a in &cuts {
        for cut_b in &cuts {
            let what = format!("A cut to {cut_a}, B to {cut_b}");
            let better = generation_at(*cut_a).max(generation_at(*cut_b));
            let better_is_clean =
                [cut_a, cut_b].iter().any(|cut| is_clean(**cut) && generation_at(**cut) == better);
            match intact.with(Some(&intact.content[..*cut_a]), Some(&intact.content[..*cut_b])) {
                Ok(loaded) => {
                    assert!(better_is_clean, "{what}");
                    assert_eq!(loaded.unwrap().version.generation, better, "{what}");
                    older += u32::from(better < EDITS as u64);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}");
                    assert!(
                        error.to_string().contains("MANIFEST-A") && error.to_string().contains("MANIFEST-B")
                    );
                    assert!(!better_is_clean, "{what}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100 && older > 100, "{refused} {older}");
}

/// Any one byte flipped in each copy: neither can vouch for the other.
#[test]
fn flips_in_both_copies_are_refused() {
    let intact = intact();
    let mut rng = seeded(6);
    for _ in 0..4000 {
        let mut flipped = || {
            let mut bytes = intact.content.clone();
            let offset = rng.random_range(0..bytes.len());
            bytes[offset] ^= 1 << rng.random_range(0..8);
            (offset, bytes)
        };
        let ((at_a, a), (at_b, b)) = (flipped(), flipped());
        let error =
            intact.with(Some(&a), Some(&b)).err().unwrap_or_else(|| panic!("A at {at_a}, B at {at_b}"));
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.to_string().matches("corruption").count(), 1, "{error}");
    }
}

#[test]
fn copies_of_different_histories_are_refused() {
    let intact = intact();
    let branch = |edits: &[&str]| {
        let (env, disk) = world();
        let (mut manifest, mut version) = create(&env).unwrap();
        for text in edits {
            version = manifest.append(&version, &Edit::parse(text)).unwrap();
        }
        bytes(&disk, A)
    };
    #[track_caller]
    fn check(intact: &Intact, a: &[u8], b: &[u8], expect: &str) {
        let error = intact.with(Some(a), Some(b)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(expect), "{error}");
    }
    check(&intact, &branch(&["log 5"]), &branch(&["log 6"]), "different histories at generation 2");
    check(&intact, &branch(&["log 5"]), &branch(&["log 6", "log 7"]), "different histories at generation 2");
    check(&intact, &branch(&["log 5", "log 7"]), &branch(&["log 6"]), "different histories at generation 2");

    // A rewritten copy knows the hash of the payload before its snapshot.
    let rewritten = {
        let (env, disk) = world();
        let (mut manifest, version) = create(&env).unwrap();
        manifest.append(&version, &Edit::parse("log 6")).unwrap();
        let (mut manifest, version) =
            (read(&env).unwrap().unwrap().manifest, read(&env).unwrap().unwrap().version);
        manifest.append(&version, &Edit::parse("log 9")).unwrap();
        bytes(&disk, A)
    };
    check(&intact, &rewritten, &branch(&["log 5"]), "different histories at generation 2");
    let related = branch(&["log 6"]);
    let loaded = intact.with(Some(&rewritten), Some(&related)).unwrap().unwrap();
    assert!(loaded.lagging && loaded.damaged.is_empty() && loaded.version.log_number == 9);
    let loaded = intact.with(Some(&related), Some(&rewritten)).unwrap().unwrap();
    assert!(loaded.lagging && loaded.damaged.is_empty() && loaded.version.log_number == 9);

    let other = {
        let (env, disk) = world();
        Manifest::create_with(&env, dir(), DB + 1, &edit(0), TINY).unwrap();
        bytes(&disk, A)
    };
    check(&intact, &intact.content, &other, "databases");
}
