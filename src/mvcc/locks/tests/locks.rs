//! What is granted at once and what is not; what the table says of it.

use super::*;
use crate::base::deadlock::LockSpan;
use crate::env::{Clock, SimClock};

#[test]
fn two_owners_get_what_does_not_conflict() {
    for (first, second, is_free) in [
        ("s k", "s k", true),
        ("s k", "x k", false),
        ("x k", "s k", false),
        ("x k", "x k", false),
        ("x k", "x l", true),
        ("x k", "s a..z", false),
        ("s k", "s a..z", true),
        ("s k", "x a..z", false),
        ("x k", "x k..l", false),
        ("x k", "x a..k", true),
        ("x k", "x l..", true),
        ("x k", "x a..", false),
        ("s a..z", "s k", true),
        ("s a..z", "x k", false),
        ("x a..z", "s k", false),
        ("x a..k", "x k", true),
        ("x k..", "x zz", false),
        ("x a..c", "x b..d", false),
        ("s a..c", "s b..d", true),
        ("s a..c", "x b..d", false),
        ("x a..c", "x c..d", true),
        ("x c..d", "x a..c", true),
        ("x a..", "x b..", false),
        ("x c..a", "x a..z", true),
        ("x b..b", "x b", true),
    ] {
        let table = table();
        let (one, two) = (owner(&table, 1), owner(&table, 2));
        take_now(&table, &one, first);
        let answer = take(&table, &two, second, Wait::No);
        assert_eq!(answer.is_ok(), is_free, "{first}, then {second}");
        table.release_all(&one);
        if !is_free {
            take_now(&table, &two, second);
        }
        table.release_all(&two);
        assert_empty(&table);
    }
}

#[test]
fn keyspaces_are_apart() {
    let table = table();
    let (one, two) = (owner(&table, 1), owner(&table, 2));
    take_now(&table, &one, "x k");
    take_now(&table, &one, "x a..");
    table.acquire(&two, KeyspaceId(4), b"k", Mode::Exclusive, Wait::No).unwrap();
    table.acquire_range(&two, KeyspaceId(4), b"", None, Mode::Exclusive, Wait::No).unwrap();
}

#[test]
fn an_owner_is_never_in_its_own_way() {
    // (first, second, is the second one fresh, locks held after it)
    for (first, second, fresh, held) in [
        ("s k", "s k", false, 1),
        ("x k", "s k", false, 1),
        ("x k", "x k", false, 1),
        ("s k", "x k", false, 1),
        ("x a..z", "x k", false, 1),
        ("x a..z", "s k", false, 1),
        ("s a..z", "x k", true, 2),
        ("x k", "x a..z", true, 2),
        ("x a..z", "x b..c", false, 1),
        ("s a..z", "x a..z", true, 2),
        ("x a..z", "x b..", true, 2),
    ] {
        let table = table();
        let one = owner(&table, 1);
        take_now(&table, &one, first);
        let grant = take(&table, &one, second, Wait::No).unwrap();
        assert_eq!(grant, Grant { waited: false, fresh }, "{first}, then {second}");
        assert_eq!(table.stats().held, held, "{first}, then {second}");
        assert_eq!(table.held_by(&one).len() as u64, held, "{first}, then {second}");
        table.release_all(&one);
        assert_empty(&table);
    }
}

#[test]
fn the_exclusive_holder_is_known() {
    for (held, holder) in
        [("x k", Some(1)), ("s k", None), ("x a..z", Some(1)), ("s a..z", None), ("x l", None)]
    {
        let table = table();
        let one = owner(&table, 1);
        take_now(&table, &one, held);
        assert_eq!(table.exclusive_holder(KS, b"k"), holder, "{held}");
        assert_eq!(table.exclusive_holder(KeyspaceId(4), b"k"), None, "{held}");
        table.release_all(&one);
        assert_eq!(table.exclusive_holder(KS, b"k"), None, "{held}, released");
    }
}

#[test]
fn a_refusal_names_the_lock_and_its_holder() {
    let table = table();
    table.set_namer(|id| (id == KS).then(|| "accounts".to_string()));
    let one = table.register(OwnerInfo { label: Some("transfer".into()), ..info(41) });
    let two = owner(&table, 42);
    take_now(&table, &one, "x k\u{1}");
    take_now(&table, &one, "s m..n");
    for (wanted, parts) in [
        ("s k\u{1}", ["key \"k\\x01\" (shared)", "holds key \"k\\x01\" (exclusive)"]),
        ("x mm", ["key \"mm\" (exclusive)", "holds range from \"m\" to \"n\" (shared)"]),
    ] {
        let text = refused(&table, &two, wanted).to_string();
        for part in [parts[0], parts[1], "transaction 41 \"transfer\" (age ", "keyspace \"accounts\""] {
            assert!(text.contains(part), "{text}: {part}");
        }
    }
    assert_eq!(table.stats().timeouts, 2);
}

#[test]
fn an_ended_owner_gets_nothing() {
    let table = table();
    let one = owner(&table, 1);
    take_now(&table, &one, "x k");
    table.release_all(&one);
    table.release_all(&one);
    for what in ["x k", "s a..b", "x b..a"] {
        assert_eq!(take(&table, &one, what, LONG).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_empty(&table);
}

#[test]
fn the_end_of_an_owner_ends_its_wait() {
    let table = table();
    let (one, two) = (owner(&table, 1), owner(&table, 2));
    for what in ["x k", "s a..z"] {
        let two = if what == "x k" { Arc::clone(&two) } else { owner(&table, 3) };
        if what == "x k" {
            take_now(&table, &one, "x k");
        }
        let waits = start(&table, &two, what, LONG);
        table.release_all(&two);
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    table.release_all(&one);
    assert_empty(&table);
}

#[test]
fn an_owner_waits_once_at_a_time() {
    let table = table();
    let (one, two) = (owner(&table, 1), owner(&table, 2));
    take_now(&table, &one, "x k");
    let waits = start(&table, &two, "x k", LONG);
    assert_eq!(take(&table, &two, "s k", LONG).unwrap_err().kind(), ErrorKind::InvalidArgument);
    table.release_all(&one);
    granted(waits);
    table.release_all(&two);
    assert_empty(&table);
}

#[test]
fn memory_is_bounded_and_given_back() {
    let table = table_with(LockOptions { bytes_max: 4096, ..options() });
    let one = owner(&table, 1);
    let (mut count, mut last) = (0, 0);
    let error = loop {
        match take(&table, &one, &format!("x key{count}"), Wait::No) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        let bytes = table.stats().bytes;
        assert!(bytes > last && bytes <= 4096);
        last = bytes;
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("lock_bytes_max = 4096"), "{error}");
    assert!(count > 10, "{count}");
    assert_eq!(table.held_by(&one).len(), count);
    let ranges = take(&table, &one, "x a..b", Wait::No).unwrap_err();
    assert_eq!(ranges.kind(), ErrorKind::LimitExceeded);
    // A request that waits takes memory as well.
    let two = owner(&table, 2);
    assert_eq!(take(&table, &two, "x key0", LONG).unwrap_err().kind(), ErrorKind::LimitExceeded);
    table.release_all(&one);
    take_now(&table, &two, "x key0");
    table.release_all(&two);
    assert_empty(&table);
}

#[test]
fn held_and_wanted_locks_are_told() {
    let table = table();
    table.set_namer(|id| Some(format!("number {}", id.0)));
    let (one, two) = (owner(&table, 1), owner(&table, 2));
    take_now(&table, &one, "s b");
    take_now(&table, &one, "x a");
    take_now(&table, &one, "s m..");
    take_now(&table, &one, "x b");
    let held: Vec<String> = table.held_by(&one).iter().map(ToString::to_string).collect();
    let expected = [
        "key \"b\" (exclusive) of keyspace \"number 3\"",
        "key \"a\" (exclusive) of keyspace \"number 3\"",
        "range from \"m\" to the end (shared) of keyspace \"number 3\"",
    ];
    assert_eq!(held, expected);
    let waits = start(&table, &two, "x n", LONG);
    let waiting = table.waiting_for(&two).unwrap();
    assert_eq!(waiting.lock.span, LockSpan::Key(b"n".to_vec()));
    assert_eq!(waiting.lock.keyspace_name.as_deref(), Some("number 3"));
    let stats = table.stats();
    assert_eq!((stats.held, stats.waiting, stats.waits), (3, 1, 1));
    table.release_all(&one);
    granted(waits);
    assert_eq!(table.waiting_for(&two), None);
    assert!(table.stats().wait_time > Duration::ZERO);
}

/// Without threads nobody can end the wait, and the clock moves only because the waiter moves it.
#[test]
fn a_wait_in_a_simulated_world_ends() {
    let clock = Arc::new(SimClock::new());
    let table = LockTable::new(clock.clone(), options());
    let (one, two) = (owner(&table, 1), owner(&table, 2));
    take_now(&table, &one, "x k");
    let limit = Duration::from_millis(205);
    for what in ["s k", "x a..z"] {
        let before = clock.now();
        let error = take(&table, &two, what, Wait::Upto(limit)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LockTimeout);
        assert_eq!(clock.now() - before, limit);
    }
    table.release_all(&one);
    table.release_all(&two);
    let stats = table.stats();
    assert_eq!((stats.held, stats.waiting, stats.bytes, stats.timeouts), (0, 0, 0, 2));
    assert_eq!(stats.wait_time, limit * 2);
}
