//! Cycles: each costs one victim, chosen as the policy says, and the report tells everything.

use super::*;
use crate::base::deadlock::DeadlockReport;

/// A step: an owner takes a lock. All but those that close a cycle are granted or wait.
type Step<'a> = (usize, &'a str);

struct Case {
    table: Arc<LockTable>,
    owners: Vec<Arc<Owner>>,
    threads: Vec<Option<Waiting>>,
}

impl Case {
    fn new(table: Arc<LockTable>, owners: Vec<Arc<Owner>>) -> Case {
        let threads = owners.iter().map(|_| None).collect();
        Case { table, owners, threads }
    }

    fn with_owners(count: u64) -> Case {
        let table = table();
        let owners = (0..count).map(|id| owner(&table, id)).collect();
        Case::new(table, owners)
    }

    fn run(&mut self, steps: &[Step<'_>]) {
        for (id, what) in steps {
            self.threads[*id] = Some(start(&self.table, &self.owners[*id], what, LONG));
        }
    }

    /// Ends victims and those that were granted what they wanted, until all are through; answers the victims.
    fn finish(mut self) -> Vec<(usize, DeadlockReport)> {
        let mut victims = Vec::new();
        while self.threads.iter().any(Option::is_some) {
            for id in 0..self.threads.len() {
                if !self.threads[id].as_ref().is_some_and(JoinHandle::is_finished) {
                    continue;
                }
                if let Err(error) = self.threads[id].take().unwrap().join().unwrap() {
                    assert_eq!(error.kind(), ErrorKind::Deadlock);
                    assert!(error.is_retryable());
                    let report = error.deadlock().unwrap().clone();
                    assert_eq!(report.victim, id as u64);
                    victims.push((id, report));
                }
                self.table.release_all(&self.owners[id]);
            }
            thread::yield_now();
        }
        self.owners.iter().for_each(|owner| self.table.release_all(owner));
        assert_empty(&self.table);
        assert_eq!(self.table.stats().deadlocks, victims.len() as u64);
        let kept = self.table.deadlocks();
        assert_eq!(kept.len(), victims.len());
        assert!(victims.iter().all(|(_, report)| kept.contains(report)));
        victims
    }
}

/// Steps, and the ids in the cycle from the one that closes it on. The youngest is the one with the highest number.
#[test]
fn every_cycle_costs_its_youngest_member() {
    let cases: &[(&[Step<'_>], &[u64])] = &[
        (&[(0, "x a"), (1, "x b"), (0, "x b"), (1, "x a")], &[1, 0]),
        (&[(0, "x a"), (1, "x b"), (1, "x a"), (0, "x b")], &[0, 1]),
        (&[(0, "x a"), (1, "x b"), (2, "x c"), (0, "x b"), (1, "x c"), (2, "x a")], &[2, 0, 1]),
        (&[(2, "x a"), (1, "x b"), (0, "x c"), (2, "x b"), (1, "x c"), (0, "x a")], &[0, 2, 1]),
        // Two upgrades.
        (&[(0, "s a"), (1, "s a"), (0, "x a"), (1, "x a")], &[1, 0]),
        // Shared locks that do not conflict with each other, but with what is wanted.
        (&[(0, "s a"), (1, "s b"), (0, "x b"), (1, "x a")], &[1, 0]),
        // Through a range, held and wanted.
        (&[(0, "x a..c"), (1, "x k"), (0, "x k"), (1, "x b")], &[1, 0]),
        (&[(0, "x k"), (1, "x m"), (0, "x l..n"), (1, "x k")], &[1, 0]),
        (&[(0, "x a..c"), (1, "x d..f"), (0, "s e..g"), (1, "s b")], &[1, 0]),
        (&[(0, "s a..c"), (1, "s b..d"), (0, "x c"), (1, "x b")], &[1, 0]),
        // Through the queue: 2 waits behind 1, which waits for 0, which waits for 2.
        (&[(0, "s a"), (2, "x b"), (1, "x h"), (1, "x a"), (2, "s a"), (0, "x b")], &[0, 2, 1]),
        // Through a range that waits.
        (&[(0, "x k"), (2, "x q"), (1, "x p"), (1, "x a..n"), (2, "x b"), (0, "x q")], &[0, 2, 1]),
    ];
    for (steps, expected) in cases {
        let count = steps.iter().map(|(id, _)| *id as u64 + 1).max().unwrap();
        let mut case = Case::with_owners(count);
        case.run(steps);
        let victims = case.finish();
        assert_eq!(victims.len(), 1, "{steps:?}");
        let (victim, report) = &victims[0];
        let mut cycle: Vec<u64> = report.cycle.iter().map(|member| member.id).collect();
        // Two requests that block at about the same time find the cycle in either order: it begins with who found it.
        let turns = cycle.iter().position(|id| *id == expected[0]).unwrap_or(0);
        cycle.rotate_left(turns);
        assert_eq!(cycle, *expected, "{steps:?}");
        assert_eq!(*victim as u64, *expected.iter().max().unwrap(), "{steps:?}");
    }
}

/// One request that closes two cycles: each has its victim, if the one that is in both is not chosen.
#[test]
fn two_cycles_closed_at_once_cost_two_victims_or_their_common_one() {
    for (closing, expected) in [(0, vec![1, 2]), (2, vec![2])] {
        let others: Vec<usize> = (0..3).filter(|id| *id != closing).collect();
        let mut case = Case::with_owners(3);
        case.run(&[(others[0], "s a"), (others[1], "s a"), (closing, "x b")]);
        case.run(&[(others[0], "s b"), (others[1], "s b"), (closing, "x a")]);
        let mut victims: Vec<usize> = case.finish().into_iter().map(|(id, _)| id).collect();
        victims.sort_unstable();
        assert_eq!(victims, expected, "{closing} closes");
    }
}

/// What decides: (policy, priorities, writes, prepared, victim, why). 1 is the youngest; 0 closes the cycle.
#[test]
fn the_victim_is_chosen_by_priority_and_then_by_policy() {
    use VictimPolicy::{FewestWrites, Requester, Youngest};
    for (policy, priorities, writes, prepared, victim, why) in [
        (Youngest, [0, 0], [5, 5], None, 1, "the youngest"),
        (Youngest, [-1, 0], [5, 5], None, 0, "the lowest priority, -1"),
        (Youngest, [0, -1], [5, 5], None, 1, "the lowest priority, -1"),
        (Youngest, [0, 0], [5, 5], Some(1), 0, "the only one that is not prepared"),
        (Youngest, [7, 0], [5, 5], Some(1), 0, "the only one that is not prepared"),
        (FewestWrites, [0, 0], [4, 5], None, 0, "the fewest writes, 4"),
        (FewestWrites, [0, 0], [5, 4], None, 1, "the fewest writes, 4"),
        (FewestWrites, [0, 0], [5, 5], None, 1, "the fewest writes, 5"),
        (FewestWrites, [1, 0], [4, 5], None, 1, "the lowest priority, 0"),
        (Requester, [0, 0], [5, 5], None, 0, "its request closed the cycle"),
        (Requester, [1, 0], [5, 5], None, 1, "the lowest priority, 0"),
        (Requester, [0, 0], [5, 5], Some(0), 1, "the only one that is not prepared"),
    ] {
        let table = table_with(LockOptions { victim: policy, ..options() });
        let register = |id: usize| table.register(OwnerInfo { priority: priorities[id], ..info(id as u64) });
        let owners: Vec<_> = (0..2).map(register).collect();
        owners.iter().zip(writes).for_each(|(owner, writes)| owner.set_writes(writes));
        if let Some(id) = prepared {
            table.mark_prepared(&owners[id]);
        }
        let mut case = Case::new(table, owners);
        case.run(&[(0, "x a"), (1, "x b"), (1, "x a"), (0, "x b")]);
        let victims = case.finish();
        let context = format!("{policy:?} {priorities:?} {writes:?} {prepared:?}");
        assert_eq!(victims.len(), 1, "{context}");
        assert_eq!((victims[0].0, victims[0].1.why.as_str()), (victim, why), "{context}");
    }
}

#[test]
fn equal_priorities_among_others_are_said() {
    let table = table();
    let register = |id: u64| table.register(OwnerInfo { priority: if id == 2 { 5 } else { 0 }, ..info(id) });
    let owners: Vec<_> = (0..3).map(register).collect();
    let mut case = Case::new(Arc::clone(&table), owners);
    case.run(&[(0, "x a"), (1, "x b"), (2, "x c"), (0, "x b"), (1, "x c"), (2, "x a")]);
    let victims = case.finish();
    assert_eq!(victims[0].0, 1);
    assert_eq!(victims[0].1.why, "the youngest of those with priority 0");
}

/// Nobody may be sacrificed: the wait ends by its time.
#[test]
fn prepared_owners_are_no_victims() {
    let table = table();
    let (one, two) = (owner(&table, 1), owner(&table, 2));
    take_now(&table, &one, "x a");
    take_now(&table, &two, "x b");
    table.mark_prepared(&one);
    table.mark_prepared(&two);
    let limit = Wait::Upto(Duration::from_millis(40));
    let waits = start(&table, &one, "x b", LONG);
    let error = take(&table, &two, "x a", limit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LockTimeout);
    assert_waits(&table, &one);
    table.release_all(&two);
    granted(waits);
    table.release_all(&one);
    assert_eq!(table.stats().deadlocks, 0);
    assert_empty(&table);
}

#[test]
fn a_report_tells_everything_and_so_does_its_text() {
    let table = table();
    table.set_namer(|id| (id == KS).then(|| "accounts".to_string()));
    let one = table.register(OwnerInfo { label: Some("transfer".into()), priority: 4, ..info(1) });
    let two = table.register(OwnerInfo { level: "serializable", priority: 4, ..info(2) });
    two.set_writes(9);
    let mut case = Case::new(Arc::clone(&table), vec![owner(&table, 0), Arc::clone(&one), Arc::clone(&two)]);
    case.run(&[(1, "x a\u{1}"), (2, "s m..n"), (1, "x mm"), (2, "s a\u{1}")]);
    let report = case.finish().remove(0).1;
    assert_eq!((report.victim, report.why.as_str()), (2, "the youngest"));
    assert!(report.at_unix_micros > 0);
    let [closing, other] = &report.cycle[..] else { panic!("{report}") };
    assert_eq!((closing.id, closing.level, closing.priority, closing.writes), (2, "serializable", 4, 9));
    assert_eq!((other.id, other.label.as_deref()), (1, Some("transfer")));
    assert!(closing.holds_granted && other.holds_granted && !closing.prepared);
    assert!(other.waited >= closing.waited && other.age > Duration::ZERO);
    let locks = [&closing.waits_for, &closing.holds, &other.waits_for, &other.holds].map(ToString::to_string);
    assert_eq!(
        locks,
        [
            "key \"a\\x01\" (shared) of keyspace \"accounts\"",
            "range from \"m\" to \"n\" (shared) of keyspace \"accounts\"",
            "key \"mm\" (exclusive) of keyspace \"accounts\"",
            "key \"a\\x01\" (exclusive) of keyspace \"accounts\"",
        ]
    );
    let text = report.to_string();
    for part in [
        "deadlock of 2 transactions: transaction 2 is the victim: the youngest",
        "transaction 1 \"transfer\" (repeatable read, priority 4, age ",
        "transaction 2 (serializable, priority 4, age ",
        "9 writes, victim)",
        locks[0].as_str(),
        locks[1].as_str(),
        locks[2].as_str(),
        locks[3].as_str(),
    ] {
        assert!(text.contains(part), "{text}: {part}");
    }
    assert_eq!(text.lines().count(), 7);
}

#[test]
fn the_last_reports_are_kept() {
    let table = table_with(LockOptions { reports_kept: 2, ..options() });
    for round in 0..3u64 {
        let (one, two) = (owner(&table, round * 2), owner(&table, round * 2 + 1));
        take_now(&table, &one, "x a");
        take_now(&table, &two, "x b");
        let waits = start(&table, &one, "x b", LONG);
        assert_eq!(take(&table, &two, "x a", LONG).unwrap_err().kind(), ErrorKind::Deadlock);
        table.release_all(&two);
        granted(waits);
        table.release_all(&one);
    }
    let victims: Vec<u64> = table.deadlocks().iter().map(|report| report.victim).collect();
    assert_eq!(victims, [3, 5]);
    assert_eq!(table.stats().deadlocks, 3);
}

#[test]
fn the_graph_is_text_and_dot_with_everything_escaped() {
    let table = table();
    let one = table.register(OwnerInfo { label: Some("a \"quoted\" \\ label\n{}".into()), ..info(1) });
    let (two, three) = (owner(&table, 2), owner(&table, 3));
    assert_eq!(table.wait_graph().to_string(), "no transaction waits for a lock");
    assert_eq!(table.wait_graph().to_dot(), "digraph waits {\n}\n");
    take_now(&table, &one, "s \"k\\");
    let second = start(&table, &two, "x \"k\\", LONG);
    let third = start(&table, &three, "s \"k\\", LONG);
    let graph = table.wait_graph();
    let edges: Vec<_> = graph.edges.iter().map(|edge| (edge.waiter, edge.blocker, edge.granted)).collect();
    assert_eq!(edges, [(2, 1, true), (3, 2, false)]);
    let text = graph.to_string();
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("transaction 3 waits ") && text.contains("is ahead in the queue for"), "{text}");
    let dot = graph.to_dot();
    assert!(dot.contains("t2 -> t1 [label=\"key \\\"\\\\\\\"k\\\\\\\\\\\" (exclusive)"), "{dot}");
    assert!(dot.contains("t3 -> t2 ") && dot.contains("style=dashed"), "{dot}");
    for line in dot.lines() {
        assert_eq!(unescaped_quotes(line) % 2, 0, "{line}");
    }
    assert_eq!(dot.lines().count(), 2 + 3 + 2);
    table.release_all(&one);
    granted(second);
    table.release_all(&two);
    granted(third);
}

/// Quotes that begin or end a string of DOT.
fn unescaped_quotes(line: &str) -> usize {
    let (mut count, mut is_escaped) = (0, false);
    for one in line.chars() {
        count += usize::from(one == '"' && !is_escaped);
        is_escaped = one == '\\' && !is_escaped;
    }
    count
}
