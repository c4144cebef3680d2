//! The fault guard: a page of a file mapping that cannot be brought in is an error of one file, not the end of the
//! process.
//!
//! Touching such a page (the file was truncated by somebody, the medium failed, no block could be allocated) raises
//! `SIGBUS`. Mappings registered here are known to a handler, installed once, at the first registration. It looks up
//! the faulting address in a table; if a region holds it, the handler sets the region's poison flag, maps zeros over
//! the **whole region**, and returns, so that the access goes on. Whoever copied looks at the flag after the copy.
//! The whole region, because one replaced mapping stays one mapping however many pages are bad (systemd's journal
//! does the same page by page), and because the flag spoils the region for good anyway. A fault elsewhere goes to
//! whoever handled `SIGBUS` before, with the effect it would have had without us.
//!
//! The table is read by the handler, which may run on any thread at any instruction: it is a list of chunks of
//! atomics that only grows; no locks, no allocation, no memory ever given back.
//!
//! Limits, by nature: a handler that the program installs later and that does not chain to the earlier one switches
//! the guard off; without a guard at all, [`super::OsFs::without_mapping`] gives the same results through reads.
#![expect(unsafe_code, reason = "a signal handler and its table")]

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, compiler_fence, fence};

use libc::{c_int, c_void, siginfo_t};

/// One registered region. `start..end` is empty when the slot is free.
///
/// `version` is odd while the others change (a sequence lock). The handler passes over a slot that changes under it,
/// and that is never the one it looks for: a faulting access borrows its region, whose slot was written before the
/// region was handed out and is written again only when the region is dropped.
#[derive(Default)]
struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    writable: AtomicBool,
    poisoned: AtomicBool,
    taken: AtomicBool,
}

impl Slot {
    /// Changes what the slot says. Only whoever holds `taken` may.
    fn set(&self, start: usize, end: usize, writable: bool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.writable.store(writable, Ordering::Relaxed);
        self.poisoned.store(false, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Start, length and writability of the region in this slot, if it holds the address.
    fn region_holding(&self, address: usize) -> Option<(usize, usize, bool)> {
        let before = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let writable = self.writable.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let settled = before & 1 == 0 && before == self.version.load(Ordering::Relaxed);
        if !settled || address < start || address >= end {
            return None;
        }
        Some((start, end.wrapping_sub(start), writable))
    }
}

const CHUNK_SLOTS: usize = 64;

/// A part of the table. Leaked on creation: a handler may be reading it at any time.
struct Chunk {
    slots: [Slot; CHUNK_SLOTS],
    older: *mut Chunk,
}

static NEWEST: AtomicPtr<Chunk> = AtomicPtr::new(ptr::null_mut());

/// All slots of the table, those added last first.
fn slots() -> impl Iterator<Item = &'static Slot> {
    let mut next = NEWEST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: `NEWEST` and `older` are null or point to a leaked chunk that was complete before its address was
        // published with `Release`; nothing of it is changed afterwards but its atomics.
        let chunk = unsafe { next.as_ref() }?;
        next = chunk.older;
        Some(&chunk.slots)
    })
    .flatten()
}

/// Takes a free slot, adding a chunk when there is none.
fn take_slot() -> &'static Slot {
    loop {
        for slot in slots() {
            if !slot.taken.load(Ordering::Relaxed) && !slot.taken.swap(true, Ordering::Acquire) {
                return slot;
            }
        }
        let older = NEWEST.load(Ordering::Acquire);
        let chunk = Box::leak(Box::new(Chunk { slots: std::array::from_fn(|_| Slot::default()), older }));
        let added: *mut Chunk = chunk;
        if NEWEST.compare_exchange(older, added, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: the chunk comes from the box leaked above and was never published, so this is its only pointer.
            drop(unsafe { Box::from_raw(added) });
        }
    }
}

/// A range of addresses known to the handler, until dropped.
///
/// Dropped **before** the range is unmapped: the owner of the mapping has no access in flight then, and once the
/// range is unmapped another thread may be given the same addresses. So registered ranges never overlap.
pub(super) struct Registration {
    slot: &'static Slot,
}

impl Registration {
    /// Registers whole pages of a mapping of one's own, installing the handler if it is the first.
    ///
    /// # Safety
    ///
    /// The pages `start .. start + bytes` are one mapping that the caller owns, aligned to pages at both ends; it
    /// stays mapped as long as the registration lives, nothing but this guard maps anything over it, and losing
    /// its content for zeros is something the caller can live with.
    pub(super) unsafe fn new(start: usize, bytes: usize, writable: bool) -> io::Result<Registration> {
        install()?;
        let slot = take_slot();
        slot.set(start, start.saturating_add(bytes), writable);
        Ok(Registration { slot })
    }

    /// Whether an access to the region failed since it was registered.
    ///
    /// Called after an access, answers for that access: the fault's handler ran on this thread within it, or, on
    /// another thread, set the flag before zeros could appear in place of the file.
    #[inline]
    pub(super) fn is_poisoned(&self) -> bool {
        // The access before must not be moved behind the look at the flag, by the compiler or the processor.
        compiler_fence(Ordering::SeqCst);
        fence(Ordering::Acquire);
        self.slot.poisoned.load(Ordering::Relaxed)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.set(0, 0, false);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// The action that was installed before ours. Leaked: the handler reads it.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// Installs the handler, once in the life of the process.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED.get_or_init(install_now).map_err(io::Error::from_raw_os_error)
}

fn install_now() -> Result<(), i32> {
    if errno_location().is_null() {
        return Err(libc::EOPNOTSUPP);
    }
    // SAFETY: all zeros is a valid `sigaction`. The first call reads the current action into `previous`, which is
    // published before the handler can run; the second installs a handler that is async-signal-safe (see
    // `on_sigbus`). An action installed by somebody else between the two calls is lost, as between any two such calls.
    unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) != 0 {
            return Err(last_error_number());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // The earlier handler runs with the signals blocked that it asked for.
        action.sa_mask = previous.sa_mask;
        PREVIOUS.store(Box::leak(Box::new(previous)), Ordering::Release);
        if libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) != 0 {
            return Err(last_error_number());
        }
    }
    Ok(())
}

fn last_error_number() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

/// Where this thread's `errno` is; null where we do not know, and then there is no guard.
fn errno_location() -> *mut c_int {
    // SAFETY: the functions take nothing and answer the address of a thread-local.
    #[cfg(target_os = "linux")]
    return unsafe { libc::__errno_location() };
    #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
    return unsafe { libc::__error() };
    #[cfg(target_os = "android")]
    return unsafe { libc::__errno() };
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "macos",
        target_os = "ios",
        target_os = "freebsd"
    )))]
    return ptr::null_mut();
}

/// The handler. Only atomics, `mmap`, `sigaction` and `raise`: all fit for a signal handler.
unsafe extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = errno_location();
    // SAFETY: `install_now` made sure that the location is known; the kernel hands a valid `info` to a handler
    // installed with SA_SIGINFO, and `si_addr` is meaningful for the codes `is_access` names.
    unsafe {
        let saved = *errno;
        let access = is_access((*info).si_code);
        if !(access && absorb((*info).si_addr() as usize)) {
            forward(access, signal, info, context);
        }
        *errno = saved;
    }
}

/// Whether the signal stands for an access that this thread is making right now (and will make again), rather than
/// one sent by a process or an early warning of bad memory.
fn is_access(code: c_int) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if code == libc::BUS_MCEERR_AR {
        return true;
    }
    matches!(code, libc::BUS_ADRALN | libc::BUS_ADRERR | libc::BUS_OBJERR)
}

/// Puts zeros in place of the region that holds this address and poisons it. False if no region does.
///
/// Each fault searches all slots: they are rare, and a thousand slots are a few microseconds.
fn absorb(address: usize) -> bool {
    for slot in slots() {
        let Some((start, bytes, writable)) = slot.region_holding(address) else { continue };
        slot.poisoned.store(true, Ordering::SeqCst);
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
        // SAFETY: the interrupted access borrows the region that holds `address`. Registered ranges do not overlap
        // (see `Registration`), so this is that region, and it stays mapped and registered until the access is
        // over: nothing else can have come to lie in the range. Whoever registered it agreed to lose its content.
        // A second thread that faulted in the same region does the same again, with the same result.
        let mapped = unsafe { libc::mmap(start as *mut c_void, bytes, protection, flags, -1, 0) };
        return mapped != libc::MAP_FAILED;
    }
    false
}

/// Does what would have happened without us.
///
/// # Safety
///
/// To be called by the handler with its own arguments.
unsafe fn forward(access: bool, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: `PREVIOUS` is null or a leaked action read from the kernel, so a value that is neither SIG_DFL nor
    // SIG_IGN is the address of a handler of the kind its flags say. `sigaction` and `raise` take valid arguments.
    unsafe {
        let previous = PREVIOUS.load(Ordering::Acquire).as_ref();
        let handler = previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
        match handler {
            libc::SIG_IGN if !access => {}
            // The kernel does not let a bad access be ignored, so both mean the default: back to it and return. The
            // access is made again and ends the process, with the right address in the core file. A signal that
            // was sent is sent again; it is held back until the handler has returned.
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                if !access {
                    libc::raise(signal);
                }
            }
            _ if previous.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0) => {
                type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                std::mem::transmute::<libc::sighandler_t, Handler>(handler)(signal, info, context);
            }
            _ => std::mem::transmute::<libc::sighandler_t, unsafe extern "C" fn(c_int)>(handler)(signal),
        }
    }
}
