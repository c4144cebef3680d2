//! The machine under the benchmark, and what this process used of it. Reads Linux's /proc; elsewhere it says so.

use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks per second of the times in /proc/self/stat: `USER_HZ`, 100 on every architecture Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a figure must be read with.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Logical processors this process may use.
    pub cores: usize,
    /// Cache per processor as the kernel reports it.
    pub cpu_cache: String,
    /// Bytes of main memory.
    pub memory_bytes: u64,
    /// Operating system and its version.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let system = match std::env::consts::OS {
            "linux" => format!("Linux {}", release.trim()),
            other => other.to_string(),
        };
        Machine {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_cache: field(&cpuinfo, "cache size").unwrap_or_else(|| "unknown".to_string()),
            memory_bytes: kilobytes("/proc/meminfo", "MemTotal"),
            kernel: system,
        }
    }
}

/// The value in a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_string())
    })
}

/// Bytes from a line `name: 123 kB`; 0 when there is none.
fn kilobytes(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = field(&text, name).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    value.unwrap_or(0) * 1024
}

/// Type of the file system that holds this path.
pub fn file_system(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    deepest_mount(&mounts, &path).unwrap_or_else(|| "unknown file system".to_string())
}

/// `mounts` as in /proc/self/mountinfo: the mount point is the fifth word, the type follows ` - `.
fn deepest_mount(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&point)
            .then(|| (point.len(), right.split(' ').next().unwrap_or_default().to_string()))
    };
    mounts.lines().filter_map(mount).max_by_key(|mount| mount.0).map(|mount| mount.1)
}

/// What the process used up to a moment, or between two.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Usage {
    /// Processor time in the program, background threads included.
    pub cpu_user_seconds: f64,
    /// Processor time in the kernel.
    pub cpu_system_seconds: f64,
    /// Bytes sent to storage. Those the page cache still holds are in it, those deleted before they got there too.
    pub written_bytes: u64,
    /// Bytes that came from storage.
    pub read_bytes: u64,
    /// Most memory resident at a time, since the start of the process.
    pub memory_peak_bytes: u64,
}

impl Usage {
    /// Up to now.
    pub fn now() -> Usage {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second word is a name in parentheses that may hold spaces; times are words 14 and 15.
        let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| words.get(index).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let bytes = |name: &str| field(&io, name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Usage {
            cpu_user_seconds: ticks(11) / TICKS_PER_SECOND,
            cpu_system_seconds: ticks(12) / TICKS_PER_SECOND,
            written_bytes: bytes("write_bytes"),
            read_bytes: bytes("read_bytes"),
            memory_peak_bytes: kilobytes("/proc/self/status", "VmHWM"),
        }
    }

    /// From `before` to this one.
    pub fn since(self, before: Usage) -> Usage {
        Usage {
            cpu_user_seconds: self.cpu_user_seconds - before.cpu_user_seconds,
            cpu_system_seconds: self.cpu_system_seconds - before.cpu_system_seconds,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            memory_peak_bytes: self.memory_peak_bytes,
        }
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `2026-01-31 12:00:00 UTC`
pub fn utc(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a number of days since 1970, by counting months.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds, expect: &str| assert_eq!(utc(seconds), expect);
        check(0, "1970-01-01 00:00:00 UTC");
        check(951_782_399, "2000-02-28 23:59:59 UTC");
        check(951_782_400, "2000-02-29 00:00:00 UTC");
        check(1_735_689_599, "2024-12-31 23:59:59 UTC");
        check(1_735_689_600, "2025-01-01 00:00:00 UTC");
    }

    #[test]
    fn the_deepest_mount_holds_a_path() {
        let mounts =
            "22 1 0:21 / / rw - ext4 /dev/a rw\n23 22 0:22 / /tmp rw,relatime shared:1 - tmpfs tmpfs rw\n";
        let check =
            |path: &str, expect: &str| assert_eq!(deepest_mount(mounts, Path::new(path)).unwrap(), expect);
        check("/tmp/x", "tmpfs");
        check("/tmpfile", "ext4");
        check("/", "ext4");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: A CPU\n";
        assert_eq!(field(text, "model name").unwrap(), "A CPU");
        assert_eq!(field(text, "name"), None);
    }
}
