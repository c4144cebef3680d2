//! Who goes on when: first come, first served, with holders, upgrades and insiders first.

use super::kernel::{Kernel, Plain};
use super::*;
use crate::mvcc::locks::queue::HEAD_START;

/// A line of requests, each by an owner of its number; those that are granted at once are marked.
struct Line {
    table: Arc<LockTable>,
    owners: Vec<Arc<Owner>>,
    threads: Vec<Option<Waiting>>,
}

impl Line {
    fn new(requests: &[(usize, &str)]) -> Line {
        let table = table();
        let count = requests.iter().map(|(id, _)| id + 1).max().unwrap();
        let owners = (0..count).map(|id| owner(&table, id as u64)).collect();
        let mut line = Line { table, owners, threads: (0..count).map(|_| None).collect() };
        for (id, what) in requests {
            line.request(*id, what);
        }
        line
    }

    fn request(&mut self, id: usize, what: &str) {
        assert!(self.threads[id].is_none(), "{id} waits");
        let thread = start(&self.table, &self.owners[id], what, LONG);
        if thread.is_finished() {
            thread.join().unwrap().unwrap();
        } else {
            self.threads[id] = Some(thread);
        }
    }

    fn waiting(&self) -> Vec<usize> {
        let waits = |id: &usize| self.table.waiting_for(&self.owners[*id]).is_some();
        (0..self.owners.len()).filter(waits).collect()
    }

    /// Ends an owner; answers who went on.
    fn end(&mut self, id: usize) -> Vec<usize> {
        let before = self.waiting();
        self.table.release_all(&self.owners[id]);
        let after = self.waiting();
        let woken: Vec<usize> = before.into_iter().filter(|id| !after.contains(id)).collect();
        for id in &woken {
            granted(self.threads[*id].take().unwrap());
        }
        woken
    }
}

/// Requests in their order, then ends with those who go on by each.
#[test]
fn requests_are_granted_in_their_order() {
    type Case<'a> = (&'a [(usize, &'a str)], &'a [(usize, &'a [usize])]);
    let cases: &[Case<'_>] = &[
        // One after the other.
        (&[(0, "x k"), (1, "x k"), (2, "x k")], &[(0, &[1]), (1, &[2]), (2, &[])]),
        // Shared ones together, but not past an exclusive one.
        (
            &[(0, "x k"), (1, "s k"), (2, "s k"), (3, "x k"), (4, "s k")],
            &[(0, &[1, 2]), (1, &[]), (2, &[3]), (3, &[4]), (4, &[])],
        ),
        (&[(0, "s k"), (1, "x k"), (2, "s k"), (3, "s k")], &[(0, &[1]), (1, &[2, 3])]),
        // Whoever holds it shared goes past the waiting exclusive one, and an upgrade goes first.
        (&[(0, "s k"), (1, "x k"), (0, "s k"), (0, "x k")], &[(0, &[1])]),
        (&[(0, "s k"), (3, "s k"), (1, "x k"), (2, "s k"), (0, "x k")], &[(3, &[0]), (0, &[1]), (1, &[2])]),
        // The same when others have queued up behind the one that waits for the upgrader.
        (&[(0, "s k"), (1, "x k"), (2, "s k"), (0, "x k")], &[(0, &[1]), (1, &[2])]),
        // Ranges wait for keys inside, and keys for ranges around, in order.
        (&[(0, "x k"), (1, "x a..z"), (2, "x m"), (3, "x zz")], &[(3, &[]), (0, &[1]), (1, &[2])]),
        (&[(0, "x a..z"), (1, "x k"), (2, "s a..z"), (3, "s m")], &[(0, &[1, 3]), (1, &[2])]),
        (&[(0, "x k"), (1, "s a..z"), (2, "s b..y"), (3, "s m")], &[(0, &[1, 2])]),
        (
            &[(0, "x k"), (5, "x m"), (1, "s a..z"), (2, "x b..y"), (3, "s k")],
            &[(0, &[]), (5, &[1]), (1, &[2])],
        ),
        // An owner inside a waiting range may lock more of it, past whoever waits behind the range.
        (&[(0, "x k"), (1, "x a..z"), (0, "x m"), (2, "x n"), (0, "x n")], &[(0, &[1]), (1, &[2])]),
        (&[(0, "x k"), (1, "x a..z"), (0, "x b..y")], &[(0, &[1])]),
        // Whoever holds something goes first, in its order among others who do; a shared one at once.
        (&[(0, "x k"), (1, "x k"), (2, "x m"), (2, "x k")], &[(0, &[2]), (2, &[1])]),
        (
            &[(0, "x k"), (2, "x m"), (3, "x n"), (1, "s k"), (3, "x k"), (2, "s k")],
            &[(0, &[3]), (3, &[1, 2]), (1, &[])],
        ),
        (&[(0, "s k"), (1, "x k"), (2, "x m"), (2, "s k"), (3, "s k")], &[(0, &[]), (2, &[1]), (1, &[3])]),
        (&[(0, "x k"), (1, "x a..l"), (2, "x m"), (2, "x j..z"), (3, "x y")], &[(0, &[2]), (2, &[1, 3])]),
        (
            &[(0, "x k"), (1, "x a..l"), (2, "x m"), (2, "x j..n"), (3, "x j")],
            &[(0, &[2]), (2, &[1]), (1, &[3])],
        ),
        (&[(0, "s k"), (1, "x a..l"), (2, "x m"), (2, "s j..z"), (2, "s b")], &[(0, &[]), (2, &[1])]),
        // Several keys at once.
        (&[(0, "x k"), (0, "x m"), (1, "x m"), (2, "s k"), (3, "s k")], &[(0, &[1, 2, 3])]),
    ];
    for (requests, ends) in cases {
        let mut line = Line::new(requests);
        for (id, woken) in *ends {
            assert_eq!(line.end(*id), *woken, "{requests:?}, end of {id}");
        }
        for id in 0..line.owners.len() {
            line.end(id);
        }
        assert_empty(&line.table);
        assert_eq!(line.table.stats().deadlocks, 0, "{requests:?}");
    }
}

/// Whoever holds nothing is passed only by so many.
#[test]
fn who_holds_nothing_is_passed_for_a_while_only() {
    for (arrivals, first) in [(0, 2), (HEAD_START - 2, 2), (HEAD_START - 1, 1), (HEAD_START * 9, 1)] {
        let kernel = Kernel::new(Plain::new());
        let owners: Vec<_> = (0..3).map(|id| Arc::new(Owner::new(info(id)))).collect();
        assert!(kernel.request(&owners[0], "x k").is_none() && kernel.request(&owners[2], "x m").is_none());
        assert!(kernel.request(&owners[1], "x k").is_some());
        kernel.skip_arrivals(arrivals);
        assert!(kernel.request(&owners[2], "x k").is_some());
        let woken: Vec<u64> = kernel.release(&owners[0]).woken.iter().map(|owner| owner.id()).collect();
        assert_eq!(woken, [first], "after {arrivals}");
    }
}

/// A request that gives up does not hold up those behind it, whether its time is over before or after they come.
#[test]
fn a_timeout_leaves_the_queue_and_lets_the_next_go_on() {
    for (held, gives_up, behind) in [
        ("s k", "x k", "s k"),
        ("s k", "x a..z", "s k"),
        ("s k", "x a..z", "x m"),
        ("s a..z", "x k", "s k"),
        ("s a..z", "x k", "s a..z"),
    ] {
        let table = table();
        let owners: Vec<_> = (0..3).map(|id| owner(&table, id)).collect();
        take_now(&table, &owners[0], held);
        let limit = Wait::Upto(Duration::from_millis(30));
        let first = start(&table, &owners[1], gives_up, limit);
        let next = start(&table, &owners[2], behind, LONG);
        let error = first.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LockTimeout);
        assert!(error.to_string().contains("transaction 0 "), "{error}");
        // The holder is still there: only the one that gave up was in the way.
        next.join().unwrap().unwrap();
        owners.iter().for_each(|owner| table.release_all(owner));
        assert_empty(&table);
    }
}

#[test]
fn a_hundred_waiters_on_one_holder_all_get_their_turn() {
    let table = table();
    let holder = owner(&table, 0);
    take_now(&table, &holder, "x k");
    let owners: Vec<_> = (1..=100).map(|id| owner(&table, id)).collect();
    let wait_and_end = |owner: &Arc<Owner>| {
        let (table, owner) = (Arc::clone(&table), Arc::clone(owner));
        thread::spawn(move || {
            let answer = take(&table, &owner, "x k", LONG);
            table.release_all(&owner);
            answer
        })
    };
    let threads: Vec<_> = owners.iter().map(wait_and_end).collect();
    while table.stats().waiting < 100 {
        thread::yield_now();
    }
    let graph = table.wait_graph();
    assert_eq!(graph.edges.iter().filter(|edge| edge.granted && edge.blocker == 0).count(), 100);
    table.release_all(&holder);
    threads.into_iter().for_each(granted);
    assert_eq!(table.stats().deadlocks, 0);
    assert_empty(&table);
}
