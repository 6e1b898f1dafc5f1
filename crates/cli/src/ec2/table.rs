//! Tables for people: columns as wide as their widest cell.

use crate::CommandError;
use crate::out::print_line;

/// A cell, without what could do something to a terminal.
pub(super) fn cell(value: &str) -> String {
    if value.is_empty() {
        return "-".to_owned();
    }
    value
        .chars()
        .map(|c| if misleads(c) { '?' } else { c })
        .collect()
}

/// Control characters, and those that turn the direction of text (Unicode Standard Annex #9), so that a row reads as another one.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{061C}')
}

/// Prints rows below a head; nothing when there are none.
pub(super) fn print(head: &[&str], rows: &[Vec<String>]) -> Result<(), CommandError> {
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    print_line(&line(&mut head.iter().copied()))?;
    for row in rows {
        print_line(&line(&mut row.iter().map(String::as_str)))?;
    }
    Ok(())
}
