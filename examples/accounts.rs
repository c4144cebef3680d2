//! Accounts and sessions: log in with a password, get locked out after too many wrong ones, sessions that expire.
//!
//! ```text
//! accounts DB register NAME PASSWORD     a new account
//! accounts DB login NAME PASSWORD        prints the token of a new session
//! accounts DB whoami TOKEN               whose session it is
//! accounts DB logout TOKEN               ends a session
//! accounts DB logout-all NAME            ends all sessions of an account
//! accounts DB unlock NAME                lifts a lock
//! accounts DB sweep                      removes expired sessions
//! accounts DB list                       accounts and how many sessions each has
//! accounts DB race NAME THREADS          wrong passwords from many threads at once
//! ```
//!
//! `--now SECONDS` before the command sets the time, in seconds since 1970.
//!
//! | keyspace   | key                      | value                              |
//! | ---------- | ------------------------ | ---------------------------------- |
//! | `users`    | name `\0password`        | salt and verifier                  |
//! | `users`    | name `\0attempts`        | wrong passwords since the last right one |
//! | `users`    | name `\0locked`          | when the account was locked        |
//! | `users`    | name `\0login`           | when somebody last logged in       |
//! | `sessions` | `t` token                | expiry, name                       |
//! | `sessions` | `u` name `\0` token      | expiry: the sessions of an account |
//! | `sessions` | `x` expiry token         | name: sessions by expiry           |
#![expect(
    clippy::disallowed_methods,
    reason = "an example asks the system for time and randomness like any program"
)]

use esker::{Batch, Db, Isolation, Keyspace, Transaction};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_128_with_seed;

const USAGE: &str = "usage: accounts DB [--now SECONDS] register NAME PASSWORD | login NAME PASSWORD | whoami TOKEN | \
                     logout TOKEN | logout-all NAME | unlock NAME | sweep | list | race NAME THREADS";

/// Wrong passwords in a row after which an account is locked.
const ATTEMPTS_MAX: u32 = 5;
const SESSION_SECONDS: u64 = 14 * 24 * 3600;
/// Sessions that a sweep removes in one batch.
const SWEEP_SESSIONS: usize = 1000;
const TOKEN_BYTES: usize = 16;
const SALT_BYTES: usize = 16;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("accounts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (dir, now, command) = match arguments.as_slice() {
        [dir, "--now", seconds, command @ ..] => {
            (dir, seconds.parse().map_err(|_| format!("{seconds} is no number of seconds"))?, command)
        }
        [dir, command @ ..] => (dir, SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), command),
        [] => return Err(USAGE.into()),
    };
    if command.is_empty() {
        return Err(USAGE.into());
    }
    let store = Store::open(Path::new(dir))?;
    let answer = execute(&store, now, command);
    store.db.close()?;
    answer
}

fn execute(store: &Store, now: u64, command: &[&str]) -> Outcome<String> {
    match command {
        ["register", name, password] => {
            store.register(name, password).map(|()| format!("{name} is registered"))
        }
        ["login", name, password] => store.login(name, password, now),
        ["whoami", token] => store.whoami(token, now),
        ["logout", token] => store.logout(token).map(|()| "logged out".to_string()),
        ["logout-all", name] => Ok(format!("{} sessions ended", store.logout_all(name)?)),
        ["unlock", name] => store.unlock(name).map(|()| format!("{name} is unlocked")),
        ["sweep"] => Ok(format!("{} sessions expired", store.sweep(now)?)),
        ["list"] => store.list(),
        ["race", name, threads] => race(store, name, threads.parse()?, now),
        _ => Err(USAGE.into()),
    }
}

struct Store {
    db: Db,
    users: Keyspace,
    sessions: Keyspace,
}

impl Store {
    fn open(dir: &Path) -> Outcome<Store> {
        // Every write below is on the disk when it is answered: a wrong attempt must not be forgotten in a crash, nor
        // a logout undone.
        let db = Db::open(dir)?;
        let (users, sessions) = (db.keyspace("users")?, db.keyspace("sessions")?);
        Ok(Store { db, users, sessions })
    }

    fn register(&self, name: &str, password: &str) -> Outcome<()> {
        if name.is_empty() || name.contains('\0') {
            return Err("a name is not empty and has no zero bytes".into());
        }
        let salt = random::<SALT_BYTES>()?;
        let record = [salt.as_slice(), &verifier(&salt, password)].concat();
        // Of two who take the same name at once, one is the second.
        let is_free = self.db.transact(Isolation::Serializable, |txn| {
            let is_free = !txn.contains_key(&self.users, user_key(name, "password"))?;
            if is_free {
                txn.put(&self.users, user_key(name, "password"), &record)?;
            }
            Ok(is_free)
        })?;
        if is_free { Ok(()) } else { Err(format!("{name} is taken").into()) }
    }

    /// Opens a session. What belongs together changes together, in two keyspaces: with a session the counter of wrong
    /// attempts is gone, and a session is found by its token, by its account and by its expiry, or not at all.
    ///
    /// The lock on the password record, from the first read on, makes attempts at one account wait for each other: two
    /// that read the same count would count as one. What is read after the lock is read as it is then, because READ
    /// COMMITTED sees what is committed when it reads.
    fn login(&self, name: &str, password: &str, now: u64) -> Outcome<String> {
        let token = hex(&random::<TOKEN_BYTES>()?);
        let checked = self.db.transact(Isolation::ReadCommitted, |txn| {
            let record = txn.get_for_update(&self.users, user_key(name, "password"))?;
            let checked = self.check_password(txn, record.as_deref(), name, password, now)?;
            if checked.is_ok() {
                self.open_session(txn, name, &token, now)?;
            }
            // What was counted is committed also when the password was wrong.
            Ok(checked)
        })?;
        checked.map_err(Into::into).map(|()| token)
    }

    fn open_session(&self, txn: &mut Transaction, name: &str, token: &str, now: u64) -> esker::Result<()> {
        let expiry = now.saturating_add(SESSION_SECONDS).to_be_bytes();
        txn.delete(&self.users, user_key(name, "attempts"))?;
        txn.put(&self.users, user_key(name, "login"), now.to_be_bytes())?;
        txn.put(&self.sessions, token_key(token), [expiry.as_slice(), name.as_bytes()].concat())?;
        txn.put(&self.sessions, account_key(name, token), expiry)?;
        txn.put(&self.sessions, expiry_key(&expiry, token), name)
    }

    /// Counts a wrong password, and locks the account when there were too many. Answers why somebody is not let in.
    fn check_password(
        &self,
        txn: &mut Transaction,
        record: Option<&[u8]>,
        name: &str,
        password: &str,
        now: u64,
    ) -> esker::Result<Result<(), String>> {
        let Some(record) = record else { return Ok(Err("wrong name or password".to_string())) };
        if txn.contains_key(&self.users, user_key(name, "locked"))? {
            return Ok(Err(format!("{name} is locked after {ATTEMPTS_MAX} wrong passwords")));
        }
        let Some((salt, expected)) = record.split_at_checked(SALT_BYTES) else {
            return Ok(Err("a damaged password record".to_string()));
        };
        if verifier(salt, password) == expected {
            return Ok(Ok(()));
        }
        let attempts =
            attempts(txn.get(&self.users, user_key(name, "attempts"))?.as_deref()).saturating_add(1);
        txn.put(&self.users, user_key(name, "attempts"), attempts.to_be_bytes())?;
        if attempts >= ATTEMPTS_MAX {
            txn.put(&self.users, user_key(name, "locked"), now.to_be_bytes())?;
        }
        Ok(Err("wrong name or password".to_string()))
    }

    /// Under the lock of the password, as logins are: one that is under way would put back what is removed here.
    fn unlock(&self, name: &str) -> Outcome<()> {
        self.db.transact(Isolation::ReadCommitted, |txn| {
            txn.get_for_update(&self.users, user_key(name, "password"))?;
            txn.delete(&self.users, user_key(name, "locked"))?;
            txn.delete(&self.users, user_key(name, "attempts"))
        })?;
        Ok(())
    }

    /// Expiry and name of a session that was not ended or swept.
    fn session(&self, token: &str) -> Outcome<Option<(u64, String)>> {
        let Some(record) = self.sessions.get(token_key(token))? else { return Ok(None) };
        let (expiry, name) = record.split_first_chunk::<8>().ok_or("a damaged session record")?;
        Ok(Some((u64::from_be_bytes(*expiry), String::from_utf8(name.to_vec())?)))
    }

    fn whoami(&self, token: &str, now: u64) -> Outcome<String> {
        match self.session(token)? {
            Some((expiry, name)) if now < expiry => Ok(name),
            _ => Err("no such session, or it has expired".into()),
        }
    }

    fn logout(&self, token: &str) -> Outcome<()> {
        let Some((expiry, name)) = self.session(token)? else { return Err("no such session".into()) };
        let mut batch = self.db.batch();
        self.end_session(&mut batch, token, &name, &expiry.to_be_bytes())?;
        batch.commit()?;
        Ok(())
    }

    /// By prefix: the sessions of one account stand next to each other. With the lock that a login takes, so that none is
    /// opened meanwhile.
    fn logout_all(&self, name: &str) -> Outcome<usize> {
        let prefix = account_key(name, "");
        let ended = self.db.transact(Isolation::ReadCommitted, |txn| {
            txn.get_for_update(&self.users, user_key(name, "password"))?;
            let sessions: Vec<_> = txn.prefix(&self.sessions, &prefix).collect::<esker::Result<_>>()?;
            for (key, expiry) in &sessions {
                let token = String::from_utf8_lossy(&key[prefix.len()..]);
                for key in session_keys(&token, name, expiry) {
                    txn.delete(&self.sessions, key)?;
                }
            }
            Ok(sessions.len())
        })?;
        Ok(ended)
    }

    /// By range: sessions stand in the order of their expiry. Large sweeps are cut into batches; one that is
    /// interrupted has removed whole sessions and the next one removes the rest.
    fn sweep(&self, now: u64) -> Outcome<usize> {
        let up_to = expiry_key(&now.saturating_add(1).to_be_bytes(), "");
        let mut expired = 0usize;
        let mut batch = self.db.batch();
        for item in self.sessions.range(b"x".to_vec()..up_to) {
            let (key, name) = item?;
            let (expiry, token) = key[1..].split_first_chunk::<8>().ok_or("a damaged expiry record")?;
            self.end_session(&mut batch, std::str::from_utf8(token)?, std::str::from_utf8(&name)?, expiry)?;
            expired += 1;
            if expired.is_multiple_of(SWEEP_SESSIONS) {
                std::mem::replace(&mut batch, self.db.batch()).commit()?;
            }
        }
        batch.commit()?;
        Ok(expired)
    }

    fn end_session(&self, batch: &mut Batch, token: &str, name: &str, expiry: &[u8]) -> Outcome<()> {
        for key in session_keys(token, name, expiry) {
            batch.delete(&self.sessions, key)?;
        }
        Ok(())
    }

    fn list(&self) -> Outcome<String> {
        // One moment for both keyspaces.
        let snapshot = self.db.snapshot();
        let mut text = String::new();
        for item in snapshot.iter_in(&self.users) {
            let (key, _) = item?;
            let Some(name) = key.strip_suffix(b"\0password") else { continue };
            let name = std::str::from_utf8(name)?;
            // Not `count`, which would take an error for a session.
            let sessions = snapshot
                .prefix_in(&self.sessions, account_key(name, ""))
                .try_fold(0, |count, session| session.map(|_| count + 1))?;
            let locked = snapshot.get_in(&self.users, user_key(name, "locked"))?.is_some();
            let attempts = attempts(snapshot.get_in(&self.users, user_key(name, "attempts"))?.as_deref());
            writeln!(
                text,
                "{name}: {sessions} sessions, {attempts} wrong attempts{}",
                if locked { ", locked" } else { "" }
            )?;
        }
        Ok(text.trim_end().to_string())
    }
}

/// The lockout race: of many wrong attempts at once exactly the allowed number is counted, then the account is locked.
fn race(store: &Store, name: &str, threads: usize, now: u64) -> Outcome<String> {
    let refusals: Vec<String> = std::thread::scope(|scope| {
        let attempt = || match store.login(name, "certainly wrong", now) {
            Ok(_) => "let in".to_string(),
            Err(error) => error.to_string(),
        };
        let attempts: Vec<_> = (0..threads).map(|_| scope.spawn(attempt)).collect();
        attempts.into_iter().map(|thread| thread.join().unwrap_or_else(|_| "a panic".to_string())).collect()
    });
    let count = |text: &str| refusals.iter().filter(|refusal| refusal.contains(text)).count();
    Ok(format!("{} counted, {} refused by the lock", count("wrong name"), count("is locked")))
}

/// Wrong passwords so far.
fn attempts(record: Option<&[u8]>) -> u32 {
    record.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The entries of a session.
fn session_keys(token: &str, name: &str, expiry: &[u8]) -> [Vec<u8>; 3] {
    [token_key(token).into_bytes(), account_key(name, token).into_bytes(), expiry_key(expiry, token)]
}

fn user_key(name: &str, field: &str) -> String {
    format!("{name}\0{field}")
}

fn token_key(token: &str) -> String {
    format!("t{token}")
}

fn account_key(name: &str, token: &str) -> String {
    format!("u{name}\0{token}")
}

/// Big-endian, so that the order of keys is the order of time.
fn expiry_key(expiry: &[u8], token: &str) -> Vec<u8> {
    [b"x", expiry, token.as_bytes()].concat()
}

/// A stand-in so that the example needs no further crate, and no protection: use a password hash such as Argon2.
fn verifier(salt: &[u8], password: &str) -> [u8; 16] {
    let salted = [salt, password.as_bytes()].concat();
    (0..1000).fold([0; 16], |hash, round| {
        xxh3_128_with_seed(&[hash.as_slice(), &salted].concat(), round).to_le_bytes()
    })
}

fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    let mut source = File::open("/dev/urandom").map_err(|error| format!("/dev/urandom: {error}"))?;
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
