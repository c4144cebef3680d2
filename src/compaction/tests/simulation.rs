//! Policies at work on growing trees: flushes, up to four compactions at once ending in any order, snapshots, changes
//! of style in between. Every task is checked, every reader is checked, and every tree comes to rest in shape.

use super::generator;
use super::model::{ENTRY_BYTES, Model};
use crate::compaction::window::depth;
use crate::compaction::{Shape, Style, debt, pick};
use rand::RngExt;
use rand::rngs::StdRng;

const KEYS: u32 = 600;

/// 40 entries a flush, tables of 20, so that hundreds of flushes reach three levels.
fn shape(style: Style) -> Shape {
    Shape {
        style,
        size_ratio: 3,
        l0_runs: 3,
        level_base_bytes: 120 * ENTRY_BYTES,
        target_table_bytes: 20 * ENTRY_BYTES,
        max_compaction_bytes: 200 * ENTRY_BYTES,
        fifo_bytes_max: 0,
    }
}

#[derive(Debug, Clone, Copy)]
enum Load {
    Uniform,
    Ascending,
    /// Ascending with jitter: flushes overlap their neighbours a little.
    Nearly,
    /// Most operations on few keys.
    Hot,
    /// More deletes than puts.
    Deletes,
}

const LOADS: [Load; 5] = [Load::Uniform, Load::Ascending, Load::Nearly, Load::Hot, Load::Deletes];

fn operations(random: &mut StdRng, load: Load, round: u32, count: u32) -> Vec<(u32, bool)> {
    let one = |index: u32| {
        let place = round * count + index;
        match load {
            Load::Uniform => (random.random_range(0..KEYS), random.random_bool(0.1)),
            Load::Ascending => (place % KEYS, false),
            Load::Nearly => ((place + random.random_range(0..20)) % KEYS, random.random_bool(0.05)),
            Load::Hot => match random.random_bool(0.9) {
                true => (random.random_range(0..20), random.random_bool(0.2)),
                false => (random.random_range(0..KEYS), false),
            },
            Load::Deletes => (random.random_range(0..KEYS), random.random_bool(0.6)),
        }
    };
    (0..count).map(one).collect()
}

fn grow(model: &mut Model, random: &mut StdRng, load: Load, flushes: u32, may_expire: bool) {
    let mut round = 0;
    while round < flushes {
        match random.random_range(0..10) {
            0..4 => {
                let count = if random.random_bool(0.2) { 3 } else { 40 };
                model.flush(&operations(random, load, round, count));
                round += 1;
            }
            4..7 if model.begun() < 4 => drop(model.begin()),
            9 if !may_expire => match model.snapshot_count() {
                0..3 => model.take_snapshot(),
                count => model.release_snapshot(random.random_range(0..count)),
            },
            _ if model.begun() > 0 => model.finish(random.random_range(0..model.begun())),
            _ => {}
        }
        if round % 8 == 0 {
            model.verify(KEYS, may_expire);
        }
    }
}

fn is_in_shape(model: &Model) {
    let (tree, shape) = (&model.tree, &model.shape);
    let picture = model.picture();
    assert!(pick(tree, shape, &model.running).is_none());
    let l0_runs = tree.levels[0].runs.len();
    assert!(l0_runs < shape.l0_runs as usize, "{picture:#?}");
    let last = tree.levels.iter().rposition(|level| !level.runs.is_empty()).unwrap_or(1).max(1);
    match shape.style {
        Style::LazyLeveling => {
            assert!(tree.levels[last].runs.len() <= 1, "{picture:#?}");
            assert!(tree.levels[last].bytes() <= shape.capacity(last), "{picture:#?}");
            for (index, level) in tree.levels.iter().enumerate().take(last).skip(1) {
                let deep = depth(level.runs.iter().flat_map(|run| &run.tables));
                assert!(deep < shape.size_ratio as usize, "{picture:#?}");
                assert!(level.bytes() < shape.capacity(index), "{picture:#?}");
            }
        }
        Style::Leveled => {
            assert!(tree.levels.iter().skip(1).all(|level| level.runs.len() <= 1), "{picture:#?}")
        }
        Style::Tiered => assert!(tree.runs().count() <= shape.size_ratio as usize, "{picture:#?}"),
        Style::Fifo => {}
    }
    let debt = debt(tree, shape);
    assert!(debt.bytes == 0 || shape.style == Style::Tiered, "{debt:?} {picture:#?}");
}

fn simulate(style: Style, seed: u64) {
    let mut random = generator(seed);
    for load in LOADS {
        println!("{style:?} {load:?}");
        let mut model = Model::new(shape(style));
        grow(&mut model, &mut random, load, 120, false);
        model.settle(2000);
        model.verify(KEYS, false);
        is_in_shape(&model);
        while model.snapshot_count() > 0 {
            model.release_snapshot(0);
        }
        model.flush(&operations(&mut random, load, 120, 40));
        model.compact_all(500);
        model.verify(KEYS, false);
        assert!(model.tree.runs().count() <= 1, "{:#?}", model.picture());
        assert!(model.tree.tables().all(|table| table.deletes == 0), "no delete is left without a snapshot");
        model.settle(100);
        model.verify(KEYS, false);
    }
}

#[test]
fn lazy_leveling_comes_to_rest() {
    simulate(Style::LazyLeveling, 1);
}

#[test]
fn leveled_comes_to_rest() {
    simulate(Style::Leveled, 2);
}

#[test]
fn tiered_comes_to_rest() {
    simulate(Style::Tiered, 3);
}

#[test]
fn by_hand_nothing_is_left_but_what_readers_see() {
    let mut random = generator(8);
    for style in [Style::LazyLeveling, Style::Leveled, Style::Tiered] {
        for load in LOADS {
            let mut model = Model::new(shape(style));
            for round in 0..60 {
                model.flush(&operations(&mut random, load, round, 40));
                model.begin();
                if model.begun() > 2 {
                    model.finish(0);
                }
            }
            model.settle(500);
            model.compact_all(500);
            assert_eq!(model.entries(), model.live(), "{style:?} {load:?}");
        }
    }
}

#[test]
fn styles_can_change_under_way() {
    let mut random = generator(4);
    for load in LOADS {
        let mut model = Model::new(shape(Style::LazyLeveling));
        for _ in 0..8 {
            let styles = [Style::LazyLeveling, Style::Leveled, Style::Tiered, Style::Fifo];
            model.shape.style = styles[random.random_range(0..styles.len())];
            println!("{load:?} {:?}", model.shape.style);
            grow(&mut model, &mut random, load, 15, false);
        }
        model.settle(2000);
        for style in [Style::Leveled, Style::LazyLeveling, Style::Tiered] {
            model.shape.style = style;
            model.settle(2000);
            model.verify(KEYS, false);
            is_in_shape(&model);
        }
    }
}

#[test]
fn fifo_keeps_what_fits_and_never_brings_back_old_values() {
    let mut random = generator(5);
    for load in LOADS {
        let mut model = Model::new(Shape { fifo_bytes_max: 400 * ENTRY_BYTES, ..shape(Style::Fifo) });
        grow(&mut model, &mut random, load, 100, true);
        model.settle(500);
        model.verify(KEYS, true);
        assert!(model.tree.bytes() <= 400 * ENTRY_BYTES);
        assert!(model.tree.bytes() > 100 * ENTRY_BYTES, "{:#?}", model.picture());
    }
}

/// Entries written by merges for each entry flushed, under uniform overwrites, one compaction at a time, sizes in the
/// proportions of the defaults.
fn write_amplification(style: Style, random: &mut StdRng) -> f64 {
    let sizes = Shape {
        size_ratio: 8,
        l0_runs: 4,
        level_base_bytes: 400 * ENTRY_BYTES,
        target_table_bytes: 100 * ENTRY_BYTES,
        max_compaction_bytes: 2500 * ENTRY_BYTES,
        ..shape(style)
    };
    let mut model = Model::new(sizes);
    for _ in 0..700 {
        let ops: Vec<(u32, bool)> = (0..100).map(|_| (random.random_range(0..30_000), false)).collect();
        model.flush(&ops);
        model.settle(1000);
    }
    println!("{style:?} {:#?}", model.picture());
    model.written as f64 / model.flushed as f64
}

#[test]
fn lazy_leveling_writes_less_than_leveled_and_tiered_least() {
    let mut random = generator(6);
    let [lazy, leveled, tiered] = [Style::LazyLeveling, Style::Leveled, Style::Tiered]
        .map(|style| write_amplification(style, &mut random));
    println!("lazy leveling {lazy:.1}, leveled {leveled:.1}, tiered {tiered:.1}");
    assert!(lazy < leveled && tiered * 1.5 < lazy);
}

#[test]
fn ascending_loads_are_moved_not_written() {
    for style in [Style::LazyLeveling, Style::Leveled, Style::Tiered] {
        let mut model = Model::new(shape(style));
        for round in 0..200u32 {
            let ops: Vec<(u32, bool)> = (0..40).map(|index| (round * 40 + index, false)).collect();
            model.flush(&ops);
            model.settle(100);
        }
        assert_eq!(model.written, 0, "{style:?} {:#?}", model.picture());
        assert!(model.tree.runs().count() <= 4, "{style:?} {:#?}", model.picture());
    }
}
