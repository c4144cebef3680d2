//! Random histories against a model that only remembers what was written, what was synced, and which names may lead
//! where. Whatever a crash leaves must be explained by it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::random::{SplitMix64, test_seed};

#[derive(Default)]
struct Model {
    /// Bytes appended and bytes synced, by file.
    files: Vec<(Vec<u8>, usize)>,
    /// What each name leads to now.
    live: BTreeMap<String, usize>,
    /// What each name may lead to after a crash; one element if it is durable.
    possible: BTreeMap<String, BTreeSet<Option<usize>>>,
}

impl Model {
    fn set(&mut self, name: &str, file: Option<usize>) {
        match file {
            Some(file) => self.live.insert(name.to_string(), file),
            None => self.live.remove(name),
        };
        self.possible.entry(name.to_string()).or_insert_with(|| BTreeSet::from([None])).insert(file);
    }

    fn sync_dir(&mut self) {
        for (name, possible) in &mut self.possible {
            *possible = BTreeSet::from([self.live.get(name).copied()]);
        }
    }

    /// Whether a crash in this mode may leave these bytes of a file.
    fn explains(&self, file: usize, bytes: &[u8], mode: CrashMode) -> bool {
        let (written, synced) = &self.files[file];
        let lost =
            |(index, byte): (usize, &u8)| *byte == written[index] || *byte == 0 || mode == CrashMode::Torn;
        let prefix = mode != CrashMode::PerFilePrefix || written.starts_with(bytes);
        bytes.len() >= *synced
            && bytes.len() <= written.len()
            && bytes[..*synced] == written[..*synced]
            && bytes.iter().enumerate().all(lost)
            && prefix
    }

    fn check(&self, disk: &MemFs, mode: CrashMode) {
        let bytes = |name: &String| disk.read_file(&path("/db").join(name)).ok();
        for (name, possible) in &self.possible {
            let explained = match bytes(name) {
                None => possible.contains(&None),
                Some(bytes) => possible.iter().flatten().any(|file| self.explains(*file, &bytes, mode)),
            };
            assert!(explained, "{mode:?}: {name} may be {possible:?}");
            match mode {
                CrashMode::ProcessKill => {
                    let expect = self.live.get(name).map(|file| self.files[*file].0.clone());
                    assert!(bytes(name) == expect, "{name}");
                }
                CrashMode::SyncedOnly if possible.len() == 1 => {
                    let file = possible.iter().flatten().next();
                    let expect = file.map(|file| self.files[*file].0[..self.files[*file].1].to_vec());
                    assert!(bytes(name) == expect, "{name}");
                }
                _ => {}
            }
        }
        let known = names(disk).iter().all(|name| self.possible.contains_key(name));
        assert!(known, "{mode:?}: {:?}", names(disk));
    }
}

fn step(
    disk: &MemFs,
    model: &mut Model,
    open: &mut BTreeMap<usize, Arc<dyn AppendFile>>,
    random: &mut SplitMix64,
) {
    let name = format!("{}", random.below(6));
    let full = path("/db").join(&name);
    let target = format!("{}", random.below(6));
    match (random.below(16), model.live.get(&name).copied()) {
        (0..4, None) => {
            let file = disk.create(&full, AppendOptions::default()).unwrap();
            model.files.push((Vec::new(), 0));
            open.insert(model.files.len() - 1, file);
            model.set(&name, Some(model.files.len() - 1));
        }
        (0..8, Some(file)) => {
            let mut bytes = vec![0; random.below(1500) as usize];
            random.fill(&mut bytes);
            open[&file].append(&bytes).unwrap();
            model.files[file].0.extend_from_slice(&bytes);
        }
        (8..11, Some(file)) => {
            match random.below(2) {
                0 => open[&file].sync().unwrap(),
                _ => disk.sync_file(&full).unwrap(),
            }
            model.files[file].1 = model.files[file].0.len();
        }
        (11, Some(_)) => {
            disk.remove(&full).unwrap();
            model.set(&name, None);
        }
        (12..14, Some(file)) if target != name => {
            disk.rename(&full, &path("/db").join(&target)).unwrap();
            model.set(&name, None);
            model.set(&target, Some(file));
        }
        (14.., _) => {
            disk.sync_dir(path("/db")).unwrap();
            model.sync_dir();
        }
        _ => {}
    }
}

#[test]
fn every_crash_of_a_random_history_is_explained() {
    let mut random = SplitMix64::new(test_seed(7));
    for _ in 0..60 {
        let disk = disk();
        let mut model = Model::default();
        let mut open = BTreeMap::new();
        for _ in 0..60 {
            step(&disk, &mut model, &mut open, &mut random);
            let seed = random.next_u64();
            for mode in CrashMode::ALL {
                let after = disk.crash_clone(seed, mode);
                model.check(&after, mode);
                assert!(dump(&disk.crash_clone(seed, mode)) == dump(&after), "the same seed, the same disk");
                if mode != CrashMode::ProcessKill {
                    let again = after.crash_clone(seed, CrashMode::SyncedOnly);
                    assert!(dump(&again) == dump(&after), "what a power cut left is durable");
                }
            }
        }
        let used: usize = open.keys().map(|file| model.files[*file].0.len()).sum();
        assert_eq!(disk.used_bytes(), used as u64, "every file is open or has a name");
        drop(open);
        assert_eq!(disk.open_handles(), []);
        let linked: usize = model.live.values().map(|file| model.files[*file].0.len()).sum();
        assert_eq!(disk.used_bytes(), linked as u64);
    }
}
