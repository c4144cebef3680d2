//! An ingester that applies every event exactly once, however often it is killed.
//!
//! ```text
//! exactly_once DB ingest FILE    applies the events of a file that were not applied yet
//! exactly_once DB balances       what the events add up to
//! ```
//!
//! A line of the file is an event, `ACCOUNT AMOUNT`; its number is its line. To apply one is to add the amount to the
//! account's balance, which must happen once and not twice. The events are applied in order through a session, so the
//! session's serial number is the number of the last line that is in the database: after a crash, the one that
//! survived.
#![expect(clippy::disallowed_methods, reason = "an example reads its files like any program")]

use esker::{Db, Durability, Options};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: exactly_once DB ingest FILE | balances";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("exactly_once: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [dir, command @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    // Nobody waits for the single event: the operating system may write it when it likes. A power cut then takes the
    // last events from the database, and from the session's number with them: they are applied again.
    let open = || Options::new().memory_budget(32 << 20).durability(Durability::Os).open(dir);
    match command {
        ["ingest", file] => {
            let db = open()?;
            let answer = ingest(&db, Path::new(file));
            db.close()?;
            answer
        }
        ["balances"] => balances(&open()?),
        _ => Err(USAGE.into()),
    }
}

/// Applies what is missing of the file's events.
fn ingest(db: &Db, file: &Path) -> Outcome<String> {
    let accounts = db.keyspace("accounts")?;
    let events = BufReader::new(File::open(file).map_err(|error| format!("{}: {error}", file.display()))?);
    let session = db.session("ingest")?;
    let resumed = session.recovered_serial();
    let skipped = usize::try_from(resumed)?;
    for line in events.lines().skip(skipped) {
        let line = line?;
        let (account, amount) = line.split_once(' ').ok_or_else(|| format!("{line:?} is no event"))?;
        let amount: i64 = amount.parse().map_err(|_| format!("{amount:?} is no amount"))?;
        let balance = match accounts.get(account)? {
            Some(bytes) => i64::from_be_bytes(bytes[..].try_into()?),
            None => 0,
        };
        let balance = balance.checked_add(amount).ok_or("the balance of an account is too large")?;
        session.put(&accounts, account, balance.to_be_bytes())?;
    }
    Ok(format!("{} events applied, {resumed} of them before", session.serial()))
}

fn balances(db: &Db) -> Outcome<String> {
    let mut text = String::new();
    let applied = db.sessions()?.first().map_or(0, |session| session.serial);
    write!(text, "{applied} events")?;
    for item in db.keyspace("accounts")?.iter() {
        let (account, bytes) = item?;
        let balance = i64::from_be_bytes(bytes[..].try_into()?);
        write!(text, "\n{} {balance}", std::str::from_utf8(&account)?)?;
    }
    Ok(text)
}
