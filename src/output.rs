//! Results on standard output: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::cli::OutputFormat;

/// Prints one value as JSON, indented, with a newline.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// Prints `value` for programs, or what `table` makes of it for people.
pub(crate) fn print(
    format: OutputFormat,
    value: &impl Serialize,
    table: impl FnOnce() -> Table,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => json(value),
        OutputFormat::Table => {
            writeln!(std::io::stdout().lock(), "{}", table().trim_fmt())?;
            Ok(())
        }
    }
}

/// An empty table with the house's looks.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

/// Two columns: a name and a value a line. Nested values are shown as compact JSON.
pub(crate) fn properties(value: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Value::Object(members) = value {
        for (name, member) in members {
            table.add_row([name.clone(), cell(member)]);
        }
    }
    table
}

/// A value as a table's cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
