//! Directories of the in-memory disk: the entries the running system sees, the entries that are durable, and the
//! operations between the two. Knows nothing of what is in files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::CrashMode;
use crate::base::random::SplitMix64;

/// Number of a directory or file, never given twice.
pub(super) type NodeId = u64;

/// The root directory, also the working directory of relative paths.
const ROOT: NodeId = 0;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(NodeId),
    Dir(NodeId),
}

type Entries = BTreeMap<Arc<str>, Node>;

#[derive(Debug, Clone, Default)]
struct Dir {
    live: Entries,
    durable: Entries,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: NodeId,
    pub(super) name: Arc<str>,
}

/// One name set to a node, or taken away.
#[derive(Debug, Clone)]
struct Change {
    place: Place,
    node: Option<Node>,
}

/// Changes that reach the disk together or not at all: one, or the two of a rename.
#[derive(Debug, Clone)]
struct Operation {
    changes: Vec<Change>,
}

impl Operation {
    fn dirs(&self) -> impl Iterator<Item = NodeId> {
        self.changes.iter().map(|change| change.place.dir)
    }

    fn touches(&self, dirs: &BTreeSet<NodeId>) -> bool {
        self.dirs().any(|dir| dirs.contains(&dir))
    }
}

/// The tree of names.
#[derive(Debug, Clone)]
pub(super) struct Namespace {
    dirs: BTreeMap<NodeId, Dir>,
    /// Operations that no `sync_dir` has covered, oldest first.
    pending: Vec<Operation>,
    next_id: NodeId,
}

impl Namespace {
    /// An empty root.
    pub(super) fn new() -> Namespace {
        let dirs = BTreeMap::from([(ROOT, Dir::default())]);
        Namespace { dirs, pending: Vec::new(), next_id: 1 }
    }

    /// A number for a new file or directory.
    pub(super) fn next_id(&mut self) -> NodeId {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }

    /// What the path stands for in the running system.
    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        self.walk(&names(path)?)
    }

    fn walk(&self, names: &[&str]) -> io::Result<Node> {
        let mut node = Node::Dir(ROOT);
        for name in names {
            node = self.get(dir_id(node)?, name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// The file of this path.
    pub(super) fn find_file(&self, path: &Path) -> io::Result<NodeId> {
        match self.find(path)? {
            Node::File(id) => Ok(id),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The directory of this path.
    pub(super) fn find_dir(&self, path: &Path) -> io::Result<NodeId> {
        dir_id(self.find(path)?)
    }

    /// Where the path's last name stands, and what it stands for, if anything.
    pub(super) fn place(&self, path: &Path) -> io::Result<(Place, Option<Node>)> {
        let names = names(path)?;
        let (last, above) = names.split_last().ok_or(io::ErrorKind::IsADirectory)?;
        let dir = dir_id(self.walk(above)?)?;
        Ok((Place { dir, name: Arc::from(*last) }, self.get(dir, last)))
    }

    /// Entries of a directory as the running system sees them, by name.
    pub(super) fn entries(&self, dir: NodeId) -> impl Iterator<Item = (&Arc<str>, Node)> {
        self.dirs.get(&dir).into_iter().flat_map(|dir| &dir.live).map(|(name, node)| (name, *node))
    }

    fn get(&self, dir: NodeId, name: &str) -> Option<Node> {
        self.dirs.get(&dir)?.live.get(name).copied()
    }

    /// Sets or takes away a name; pending until the directory is synced.
    pub(super) fn set(&mut self, place: Place, node: Option<Node>) {
        self.perform(vec![Change { place, node }]);
    }

    /// Moves a node from one name to another, replacing what the other stood for; pending as one operation.
    pub(super) fn rename(&mut self, from: Place, to: Place, node: Node) {
        self.perform(vec![Change { place: from, node: None }, Change { place: to, node: Some(node) }]);
    }

    /// Makes a new directory of this name; pending until the one above is synced.
    pub(super) fn make_dir(&mut self, place: Place) {
        let id = self.next_id();
        self.dirs.insert(id, Dir::default());
        self.set(place, Some(Node::Dir(id)));
    }

    /// Makes a new directory of this name, durable at once.
    pub(super) fn make_dir_durably(&mut self, place: Place) {
        let id = self.next_id();
        self.dirs.insert(id, Dir::default());
        self.set_durably(place, Some(Node::Dir(id)));
    }

    fn perform(&mut self, changes: Vec<Change>) {
        for change in &changes {
            if let Some(dir) = self.dirs.get_mut(&change.place.dir) {
                put(&mut dir.live, change);
            }
        }
        self.pending.push(Operation { changes });
    }

    /// Makes the entries of a directory durable. A rename between two directories is one transaction: it takes what
    /// is pending in the other directory along.
    pub(super) fn sync(&mut self, dir: NodeId) {
        let mut synced = BTreeSet::from([dir]);
        loop {
            let before = synced.len();
            let covered = self.pending.iter().filter(|operation| operation.touches(&synced));
            let dirs: Vec<NodeId> = covered.flat_map(Operation::dirs).collect();
            synced.extend(dirs);
            if synced.len() == before {
                break;
            }
        }
        for operation in self.pending.extract_if(.., |operation| operation.touches(&synced)) {
            for change in &operation.changes {
                if let Some(dir) = self.dirs.get_mut(&change.place.dir) {
                    put(&mut dir.durable, change);
                }
            }
        }
    }

    /// Sets or takes away a name at once and durably, whatever is pending for it.
    pub(super) fn set_durably(&mut self, place: Place, node: Option<Node>) {
        for operation in &mut self.pending {
            operation.changes.retain(|change| change.place != place);
        }
        self.pending.retain(|operation| !operation.changes.is_empty());
        if let Some(dir) = self.dirs.get_mut(&place.dir) {
            let change = Change { place, node };
            put(&mut dir.live, &change);
            put(&mut dir.durable, &change);
        }
    }

    /// Whether every name on the way to this path would lead to the same place after a power cut.
    pub(super) fn is_durable(&self, path: &Path) -> io::Result<bool> {
        let mut dir = ROOT;
        for name in names(path)? {
            let live = self.get(dir, name).ok_or(io::ErrorKind::NotFound)?;
            let durable = self.dirs.get(&dir).and_then(|dir| dir.durable.get(name)) == Some(&live);
            let place = Place { dir, name: Arc::from(name) };
            let changes = self.pending.iter().flat_map(|operation| &operation.changes);
            if !durable || changes.into_iter().any(|change| change.place == place) {
                return Ok(false);
            }
            if let Node::Dir(id) = live {
                dir = id;
            }
        }
        Ok(true)
    }

    /// Files whose entry is durable or may yet be after a crash.
    pub(super) fn files_of_crashes(&self) -> BTreeSet<NodeId> {
        let durable = self.dirs.values().flat_map(|dir| dir.durable.values().copied());
        let changes = self.pending.iter().flat_map(|operation| &operation.changes);
        let pending = changes.filter_map(|change| change.node);
        durable.chain(pending).filter_map(file_id).collect()
    }

    /// Every file of the running system with its path, by path.
    pub(super) fn files(&self) -> Vec<(PathBuf, NodeId)> {
        let mut files = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = open.pop() {
            for (name, node) in self.entries(dir) {
                match node {
                    Node::File(id) => files.push((path.join(&**name), id)),
                    Node::Dir(id) => open.push((path.join(&**name), id)),
                }
            }
        }
        files.sort();
        files
    }

    /// The power fails: decides which pending operations are on the device, and makes that the tree.
    pub(super) fn crash(&mut self, mode: CrashMode, random: &mut SplitMix64) {
        let pending = match mode {
            CrashMode::ProcessKill => return,
            CrashMode::SyncedOnly => Vec::new(),
            CrashMode::PerFilePrefix => self.prefix_per_dir(random),
            CrashMode::Random | CrashMode::Torn => {
                let eighths_kept = random.below(9);
                let mut pending = std::mem::take(&mut self.pending);
                pending.retain(|_| random.below(8) < eighths_kept);
                pending
            }
        };
        self.pending.clear();
        for change in pending.iter().flat_map(|operation| &operation.changes) {
            if let Some(dir) = self.dirs.get_mut(&change.place.dir) {
                put(&mut dir.durable, change);
            }
        }
        for dir in self.dirs.values_mut() {
            dir.live.clone_from(&dir.durable);
        }
        self.drop_unreachable_dirs();
    }

    /// The oldest so many operations of each directory; a rename counts where the new name is.
    fn prefix_per_dir(&mut self, random: &mut SplitMix64) -> Vec<Operation> {
        let home = |operation: &Operation| operation.changes.last().map(|change| change.place.dir);
        let mut left: BTreeMap<Option<NodeId>, u64> = BTreeMap::new();
        for operation in &self.pending {
            let count = left.entry(home(operation)).or_default();
            *count = count.saturating_add(1);
        }
        for count in left.values_mut() {
            *count = random.below(count.saturating_add(1));
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|operation| match left.get_mut(&home(operation)) {
            Some(count) if *count > 0 => {
                *count = count.saturating_sub(1);
                true
            }
            _ => false,
        });
        pending
    }

    fn drop_unreachable_dirs(&mut self) {
        let mut reached = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            if reached.insert(dir) {
                open.extend(self.entries(dir).filter_map(|(_, node)| match node {
                    Node::Dir(id) => Some(id),
                    Node::File(_) => None,
                }));
            }
        }
        self.dirs.retain(|id, _| reached.contains(id));
    }
}

fn put(entries: &mut Entries, change: &Change) {
    match change.node {
        Some(node) => entries.insert(change.place.name.clone(), node),
        None => entries.remove(&change.place.name),
    };
}

fn dir_id(node: Node) -> io::Result<NodeId> {
    match node {
        Node::Dir(id) => Ok(id),
        Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn file_id(node: Node) -> Option<NodeId> {
    match node {
        Node::File(id) => Some(id),
        Node::Dir(_) => None,
    }
}

/// The names of a path, without the root and without `.` and `..`.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or(io::ErrorKind::InvalidFilename)?),
            Component::ParentDir => drop(names.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}
