//! Ctrl-C and `kill`: the temporary directory goes, then the process, by the signal that it was sent.
//!
//! A kept database needs no such care: the next open recovers it.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Sees to it that this directory is removed when the process is told to end.
pub fn remove_when_interrupted(directory: PathBuf) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let body = move || {
        let Some(signal) = signals.forever().next() else { return };
        INTERRUPTED.store(true, Ordering::SeqCst);
        remove(&directory);
        let _ = emulate_default_handler(signal);
    };
    thread::Builder::new().name("signals".to_string()).spawn(body).context("cannot start a thread")?;
    Ok(())
}

/// Removes a directory in which the engine may still be making files.
fn remove(directory: &Path) {
    for _ in 0..100 {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                thread::sleep(Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

/// Does not return once the process was told to end: with its files gone the engine fails in ways that are no news.
pub fn end_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        thread::park();
    }
}
