//! What is printed and written: lines and tables on standard output, JSON and HTML in files.

pub mod charts;
pub mod header;
pub mod html;
pub mod json;
pub mod line;
pub mod table;

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;

/// Prints to standard output; a reader that went away is an error, not a panic.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Writes a whole text.
pub fn write_all(mut file: File, text: &str) -> Result<()> {
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || amount.fract() == 0.0 { 0 } else { 1 };
    format!("{amount:.digits$} {}", UNITS[unit])
}

/// A number with a thousands separator.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_bytes_have_units() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1000, 1_234_567].map(grouped).each_ref().map(|s| &**s)
        );
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
