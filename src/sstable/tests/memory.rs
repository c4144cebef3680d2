//! A file in memory, with counters and faults: the double of what `env` gives.

use crate::env::{AppendFile, MappedFile, ReadFile};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

#[derive(Default)]
pub(crate) struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
    pub(crate) appends: AtomicU64,
    pub(crate) append_bytes_min: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) reads_uncached: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) fail_append: AtomicBool,
    pub(crate) fail_sync: AtomicBool,
    pub(crate) fail_read: AtomicBool,
    pub(crate) fail_map: AtomicBool,
    pub(crate) fail_copy: AtomicBool,
}

impl MemoryFile {
    pub(crate) fn new() -> Arc<MemoryFile> {
        Arc::default()
    }

    pub(crate) fn of(bytes: Vec<u8>) -> Arc<MemoryFile> {
        Arc::new(MemoryFile { bytes: Mutex::new(bytes), ..MemoryFile::default() })
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    pub(crate) fn cut(&self, len: usize) {
        self.bytes.lock().unwrap().truncate(len);
    }

    pub(crate) fn flip(&self, offset: usize, mask: u8) {
        self.bytes.lock().unwrap()[offset] ^= mask;
    }

    fn copy(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = bytes.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }
}

fn fault(switch: &AtomicBool) -> io::Result<()> {
    if switch.load(Relaxed) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}

impl AppendFile for MemoryFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        fault(&self.fail_append)?;
        self.appends.fetch_add(1, Relaxed);
        self.append_bytes_min.store(bytes.len() as u64, Relaxed);
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn sync(&self) -> io::Result<()> {
        fault(&self.fail_sync)?;
        self.syncs.fetch_add(1, Relaxed);
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        fault(&self.fail_read)?;
        self.reads.fetch_add(1, Relaxed);
        self.copy(offset, buf)
    }

    fn read_exact_at_uncached(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        fault(&self.fail_read)?;
        self.reads_uncached.fetch_add(1, Relaxed);
        self.copy(offset, buf)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn MappedFile>> {
        fault(&self.fail_map)?;
        // The double of a map shares nothing with the file: it is a copy that can be told to fail.
        let copy = MemoryFile::of(self.bytes()[..len as usize].to_vec());
        copy.fail_copy.store(self.fail_copy.load(Relaxed), Relaxed);
        Ok(copy)
    }
}

impl MappedFile for MemoryFile {
    fn copy_out(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        fault(&self.fail_copy)?;
        self.copies.fetch_add(1, Relaxed);
        self.copy(offset, buf)
    }
}
