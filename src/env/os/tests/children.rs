//! What concerns a whole process: signals, limits, locks. Each test runs its body in a process of its own, which is
//! this test binary again, asked for that one test.
#![expect(unsafe_code, reason = "signals and limits have no safe form")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::atomic::AtomicUsize;

use memmap2::MmapRaw;

use super::*;

/// Set in the child: what the body is to work with.
const CHILD: &str = "ESKER_TEST_CHILD";

/// Runs the body of this test in a child and says how that ended; does not return in the child.
fn in_child(test: &str, argument: &Path, body: fn(&Path)) -> ExitStatus {
    if let Some(argument) = std::env::var_os(CHILD) {
        body(Path::new(&argument));
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        &format!("env::os::tests::children::{test}"),
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    let output = command.env(CHILD, argument).output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status
}

fn check_ends_well(test: &str, body: fn(&Path)) {
    let dir = directory();
    let status = in_child(test, dir.path(), body);
    assert!(status.success(), "{status}");
}

fn check_killed(test: &str, signal: libc::c_int, body: fn(&Path)) {
    let dir = directory();
    let status = in_child(test, dir.path(), body);
    assert!(dir.path().join(LAST_STEP).exists(), "the child ended early: {status}");
    assert_eq!(status.signal(), Some(signal), "{status}");
}

/// Left behind by a child right before the step that is to kill it.
const LAST_STEP: &str = "last step";

fn last_step(dir: &Path) {
    fs::write(dir.join(LAST_STEP), b"").unwrap();
}

/// A fault under the guard, which so is installed, works, and stays as it is.
fn guarded_fault(dir: &Path) {
    let path = dir.join("guarded");
    put(&path, &pattern(10_000));
    let map = OsFs::new().open(&path).unwrap().map(10_000).unwrap();
    map.copy_out(0, &mut [0; 100]).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(kind(map.copy_out(5000, &mut [0; 100])), Some(ErrorKind::Other));
    fs::remove_file(&path).unwrap();
}

/// An access to a truncated mapping that the guard knows nothing of.
fn foreign_fault(dir: &Path) -> u8 {
    let path = dir.join("foreign");
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.set_len(4096).unwrap();
    let map = MmapRaw::map_raw(&file).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: the address is mapped; that touching it raises SIGBUS is what is being tested.
    unsafe { ptr::read_volatile(map.as_ptr()) }
}

fn send_sigbus() {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
}

fn set_handler(handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY: a zeroed action is valid, and the handlers of this file only touch atomics and call mmap.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()), 0);
    }
}

#[test]
fn a_fault_of_somebody_else_still_kills() {
    check_killed("a_fault_of_somebody_else_still_kills", libc::SIGBUS, |dir| {
        guarded_fault(dir);
        guarded_fault(dir);
        last_step(dir);
        foreign_fault(dir);
    });
}

#[test]
fn a_sent_signal_still_kills() {
    check_killed("a_sent_signal_still_kills", libc::SIGBUS, |dir| {
        set_handler(libc::SIG_DFL, 0);
        guarded_fault(dir);
        last_step(dir);
        send_sigbus();
    });
}

#[test]
fn an_ignored_signal_stays_ignored_but_a_fault_kills() {
    check_killed("an_ignored_signal_stays_ignored_but_a_fault_kills", libc::SIGBUS, |dir| {
        set_handler(libc::SIG_IGN, 0);
        guarded_fault(dir);
        send_sigbus();
        guarded_fault(dir);
        last_step(dir);
        foreign_fault(dir);
    });
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// Lets the faulting access go on.
fn map_something(address: usize) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: replaces the one-page mapping that `foreign_fault` is reading.
    unsafe { libc::mmap(address as *mut libc::c_void, 4096, libc::PROT_READ, flags, -1, 0) };
}

extern "C" fn with_information(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's information, handed on.
    map_something(unsafe { (*info).si_addr() } as usize);
}

extern "C" fn without_information(_: libc::c_int) {
    if let address @ 1.. = PAGE.load(Ordering::SeqCst) {
        map_something(address);
    } else {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_earlier_handler_gets_what_is_not_ours_again_and_again() {
    check_ends_well("an_earlier_handler_gets_what_is_not_ours_again_and_again", |dir| {
        set_handler(with_information as *const () as libc::sighandler_t, libc::SA_SIGINFO);
        for round in 0..1000 {
            guarded_fault(dir);
            assert_eq!(HANDLED.load(Ordering::SeqCst), round);
            assert_eq!(foreign_fault(dir), 0);
            assert_eq!(HANDLED.load(Ordering::SeqCst), round + 1);
        }
    });
}

#[test]
fn an_earlier_handler_of_the_simple_kind_is_called_too() {
    check_ends_well("an_earlier_handler_of_the_simple_kind_is_called_too", |dir| {
        set_handler(without_information as *const () as libc::sighandler_t, 0);
        guarded_fault(dir);
        assert_eq!(HANDLED.load(Ordering::SeqCst), 0);
        send_sigbus();
        assert_eq!(HANDLED.load(Ordering::SeqCst), 1);
        let file = tempfile::tempfile_in(dir).unwrap();
        file.set_len(4096).unwrap();
        let map = MmapRaw::map_raw(&file).unwrap();
        file.set_len(0).unwrap();
        PAGE.store(map.as_ptr() as usize, Ordering::SeqCst);
        // SAFETY: mapped; the handler puts zeros there when it faults.
        assert_eq!(unsafe { ptr::read_volatile(map.as_ptr()) }, 0);
        assert_eq!(HANDLED.load(Ordering::SeqCst), 2);
        guarded_fault(dir);
        assert_eq!(HANDLED.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn without_mapping_no_handler_is_installed() {
    check_ends_well("without_mapping_no_handler_is_installed", |dir| {
        let handler = || {
            // SAFETY: reads the current action into a valid place.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                assert_eq!(libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut action), 0);
                action.sa_sigaction
            }
        };
        let before = handler();
        let os = OsFs::new().without_mapping();
        let path = dir.join("x");
        let options = AppendOptions { preallocate: 1 << 20, mapped: true, uncached: false };
        os.create(&path, options).unwrap().append(b"abc").unwrap();
        assert!(os.open(&path).unwrap().map(3).is_err());
        assert_eq!(handler(), before);
        guarded_fault(dir);
        assert_ne!(handler(), before);
    });
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn limit(resource: Resource, value: u64) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads into and from a valid structure.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut limits), 0);
        limits.rlim_cur = value.min(limits.rlim_max);
        assert_eq!(libc::setrlimit(resource, &raw const limits), 0);
    }
}

#[test]
fn the_limit_on_file_sizes_is_an_error_and_not_a_signal() {
    check_ends_well("the_limit_on_file_sizes_is_an_error_and_not_a_signal", |dir| {
        limit(libc::RLIMIT_FSIZE, 3 << 20);
        let os = OsFs::new();
        let path = dir.join("x");
        // A reservation beyond the limit: nothing is left behind.
        for mapped in [false, true] {
            let options = AppendOptions { preallocate: 4 << 20, mapped, uncached: false };
            assert_eq!(kind(os.create(&path, options)), Some(ErrorKind::FileTooLarge));
            assert!(!os.exists(&path).unwrap());
        }
        // Growing up to the limit and no further, in small pieces and in large ones.
        for (mapped, piece) in
            [(false, 1000), (true, 1000), (false, 1 << 20), (true, 1 << 20), (true, 5 << 20)]
        {
            let file =
                os.create(&path, AppendOptions { preallocate: 1 << 20, mapped, uncached: false }).unwrap();
            let mut appended = 0;
            let error = loop {
                match file.append(&vec![7; piece]) {
                    Ok(()) => appended += piece as u64,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
            assert_eq!(appended, (3 << 20) / piece as u64 * piece as u64);
            file.sync().unwrap();
            file.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), vec![7; appended as usize]);
            os.remove(&path).unwrap();
        }
        // Lowered while a file grows: noticed before the next MiB is full.
        limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
        let file = os.create(&path, AppendOptions::default()).unwrap();
        file.append(&[7; 100]).unwrap();
        limit(libc::RLIMIT_FSIZE, 4 << 20);
        let mut appends = 0;
        while file.append(&[7; 1000]).is_ok() {
            appends += 1;
        }
        assert_eq!(appends, ((4 << 20) - 100) / 1000);
    });
}

#[test]
fn running_out_of_descriptors_is_an_error_that_says_so() {
    check_ends_well("running_out_of_descriptors_is_an_error_that_says_so", |dir| {
        let os = OsFs::new();
        let path = dir.join("x");
        put(&path, b"abc");
        let held = os.lock(&dir.join("HELD")).unwrap();
        limit(libc::RLIMIT_NOFILE, 40);
        let mut open = Vec::new();
        let full = Some(libc::EMFILE);
        let code = |error: io::Error| error.raw_os_error();
        loop {
            match os.open(&path) {
                Ok(file) => open.push(file),
                Err(error) => break assert_eq!(code(error), full),
            }
        }
        assert_eq!(os.list(dir).map(drop).map_err(code), Err(full));
        assert_eq!(os.sync_dir(dir).map_err(code), Err(full));
        assert_eq!(os.sync_file(&path).map_err(code), Err(full));
        assert_eq!(os.lock(&dir.join("LOCK")).map(drop).map_err(code), Err(full));
        assert_eq!(os.create(&dir.join("y"), AppendOptions::default()).map(drop).map_err(code), Err(full));
        assert!(os.exists(&path).unwrap());
        // A lock of our own is known without opening its file.
        assert_eq!(kind(os.lock(&dir.join("HELD"))), Some(ErrorKind::WouldBlock));
        assert!(held.is_intact());
        // What is open goes on working, mapping included.
        open[0].map(3).unwrap().copy_out(0, &mut [0; 3]).unwrap();
        open.pop();
        os.open(&path).unwrap();
    });
}

#[test]
fn running_out_of_addresses_fails_maps_and_not_appends() {
    check_ends_well("running_out_of_addresses_fails_maps_and_not_appends", |dir| {
        let os = OsFs::new();
        let sparse = dir.join("sparse");
        fs::File::create(&sparse).unwrap().set_len(64 << 30).unwrap();
        let options = AppendOptions { preallocate: 8 << 20, mapped: true, uncached: false };
        let file = os.create_new(&dir.join("log"), options).unwrap();
        let reader = os.open(&sparse).unwrap();
        limit(libc::RLIMIT_AS, 8 << 30);
        assert_eq!(reader.map(64 << 30).map(drop).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        // No room for even one more window: the log goes on by plain writes.
        limit(libc::RLIMIT_AS, 1 << 20);
        let expected = pattern(1 << 20);
        for piece in expected.chunks(1000) {
            file.append(piece).unwrap();
        }
        limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
        assert!(!file.is_mapped());
        file.finish().unwrap();
        assert!(fs::read(dir.join("log")).unwrap() == expected);
    });
}

#[test]
fn a_lock_keeps_other_processes_out() {
    let name = "a_lock_keeps_other_processes_out";
    let body: fn(&Path) = |path| {
        let code = match kind(OsFs::new().lock(path)) {
            None => 10,
            Some(ErrorKind::WouldBlock) => 11,
            Some(_) => 12,
        };
        std::process::exit(code);
    };
    let dir = directory();
    let path = dir.path().join("LOCK");
    if std::env::var_os(CHILD).is_some() {
        in_child(name, &path, body);
    }
    let lock = OsFs::new().lock(&path).unwrap();
    assert_eq!(in_child(name, &path, body).code(), Some(11));
    assert!(lock.is_intact());
    drop(lock);
    assert_eq!(in_child(name, &path, body).code(), Some(10));
    // The child is gone, and its lock with it.
    OsFs::new().lock(&path).unwrap();
}
