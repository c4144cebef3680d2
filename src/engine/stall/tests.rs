//! Pressure and admitted rate as plain functions; the token bucket on a clock of its own.

use super::*;

fn backlog() -> Backlog {
    Backlog {
        frozen_bytes: 0,
        frozen_bytes_max: 1000,
        l0_runs: 0,
        l0_trigger: 4,
        debt_bytes: 0,
        debt_bytes_usual: 1_000_000,
    }
}

#[test]
fn no_backlog_no_pressure() {
    assert_eq!(pressure(&backlog()), (0.0, None));
    assert_eq!(admitted(0.0, 1 << 30), None);
}

#[test]
fn each_figure_presses_alone_and_the_worst_names_the_reason() {
    let check = |backlog: Backlog, expect: Reason| {
        let (value, reason) = pressure(&backlog);
        assert!(value > 0.0 && value <= 1.0, "{value}");
        assert_eq!(reason, Some(expect));
    };
    check(Backlog { frozen_bytes: 900, ..backlog() }, Reason::Memtables);
    check(Backlog { l0_runs: 30, ..backlog() }, Reason::LevelZero);
    check(Backlog { debt_bytes: 2_000_000, ..backlog() }, Reason::Debt);
    check(Backlog { debt_bytes: 2_000_000, l0_runs: 48, ..backlog() }, Reason::LevelZero);
}

#[test]
fn the_admitted_rate_falls_smoothly_without_a_cliff() {
    let drain = 100 << 20;
    let mut last = admitted(0.001, drain).unwrap();
    assert!(last > drain, "hardly slowed where pressure begins");
    for step in 2..=1000u32 {
        let rate = admitted(f64::from(step) / 1000.0, drain).unwrap();
        assert!(rate <= last && last - rate < drain / 100, "a step of {} at {step}", last - rate);
        last = rate;
    }
    assert!(last > 0 && last <= drain / 20);
}

#[test]
fn the_bucket_admits_the_rate_and_pauses_in_slices() {
    let stall = Stall::new();
    let rate = 1_000_000;
    let (mut now, mut admitted) = (Duration::from_secs(1), 0u64);
    let end = now + Duration::from_secs(2);
    while now < end {
        match stall.take(100, rate, now) {
            None => admitted += 100,
            Some(pause) => {
                assert!(pause <= SLICE && pause > Duration::ZERO);
                now += pause;
            }
        }
    }
    assert!((1_900_000..=2_100_000).contains(&admitted), "{admitted}");
}
