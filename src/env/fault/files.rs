//! Open files of the failing file system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rule::{Fault, Op};
use super::{Plan, befall, injected};
use crate::env::{AppendFile, MappedFile, ReadFile};

/// A file being written.
pub(super) struct FaultAppend {
    inner: Arc<dyn AppendFile>,
    plan: Arc<Plan>,
    path: PathBuf,
    poisoned: AtomicBool,
}

impl FaultAppend {
    pub(super) fn new(inner: Arc<dyn AppendFile>, plan: Arc<Plan>, path: &Path) -> FaultAppend {
        FaultAppend { inner, plan, path: path.to_path_buf(), poisoned: AtomicBool::new(false) }
    }
}

impl AppendFile for FaultAppend {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        match self.plan.meet(Op::Append, &[&self.path]) {
            Some(Fault::ShortWrite { bytes: written, kind }) => {
                self.inner.append(bytes.get(..written).unwrap_or(bytes))?;
                Err(injected(kind))
            }
            Some(Fault::BitFlip) => {
                let mut bytes = bytes.to_vec();
                self.plan.flip_bit(&mut bytes);
                self.inner.append(&bytes)
            }
            Some(Fault::Skip) => self.inner.append(&vec![0; bytes.len()]),
            Some(Fault::Poison) => {
                self.poisoned.store(true, Ordering::Release);
                self.inner.append(&vec![0; bytes.len()])
            }
            fault => befall(fault, || self.inner.append(bytes)),
        }
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn sync(&self) -> io::Result<()> {
        self.plan.run_or_skip(Op::Sync, &[&self.path], || self.inner.sync())
    }

    fn reserved(&self) -> u64 {
        self.inner.reserved()
    }

    fn start_writeback(&self) {
        self.inner.start_writeback();
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire) || self.inner.is_poisoned()
    }

    fn finish(&self) -> io::Result<()> {
        self.plan.run_or_skip(Op::Finish, &[&self.path], || self.inner.finish())
    }
}

/// Applies what befalls a read to the bytes it gives.
fn read(
    plan: &Plan,
    op: Op,
    path: &Path,
    buf: &mut [u8],
    act: impl FnOnce(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    match plan.meet(op, &[path]) {
        Some(Fault::BitFlip) => {
            act(buf)?;
            plan.flip_bit(buf);
            Ok(())
        }
        Some(Fault::Skip) => {
            buf.fill(0);
            Ok(())
        }
        fault => befall(fault, || act(buf)),
    }
}

/// A file being read.
pub(super) struct FaultRead {
    inner: Arc<dyn ReadFile>,
    plan: Arc<Plan>,
    path: PathBuf,
}

impl FaultRead {
    pub(super) fn new(inner: Arc<dyn ReadFile>, plan: Arc<Plan>, path: &Path) -> FaultRead {
        FaultRead { inner, plan, path: path.to_path_buf() }
    }
}

impl ReadFile for FaultRead {
    fn len(&self) -> io::Result<u64> {
        self.plan.run(Op::Len, &self.path, || self.inner.len())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read(&self.plan, Op::Read, &self.path, buf, |buf| self.inner.read_exact_at(offset, buf))
    }

    fn read_exact_at_uncached(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read(&self.plan, Op::Read, &self.path, buf, |buf| self.inner.read_exact_at_uncached(offset, buf))
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn MappedFile>> {
        let inner = self.plan.run(Op::Map, &self.path, || self.inner.map(len))?;
        Ok(Arc::new(FaultMap { inner, plan: self.plan.clone(), path: self.path.clone() }))
    }
}

/// A mapped file.
struct FaultMap {
    inner: Arc<dyn MappedFile>,
    plan: Arc<Plan>,
    path: PathBuf,
}

impl MappedFile for FaultMap {
    fn copy_out(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        read(&self.plan, Op::MapRead, &self.path, buf, |buf| self.inner.copy_out(offset, buf))
    }
}
