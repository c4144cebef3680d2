//! The system's threads.

use std::any::Any;
use std::io;
use std::thread;

use crate::env::{JoinHandle, Spawner};

/// Starts a thread of the operating system for each body.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsSpawner;

impl Spawner for OsSpawner {
    fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<Option<Box<dyn JoinHandle>>> {
        if name.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a thread's name cannot contain NUL"));
        }
        let handle = thread::Builder::new().name(name).spawn(body)?;
        Ok(Some(Box::new(OsJoinHandle(handle))))
    }
}

struct OsJoinHandle(thread::JoinHandle<()>);

impl JoinHandle for OsJoinHandle {
    fn join(self: Box<Self>) -> Result<(), String> {
        self.0.join().map_err(panic_text)
    }
}

/// What a panic said.
fn panic_text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(_) => "panic without a text".to_owned(),
        },
    }
}
