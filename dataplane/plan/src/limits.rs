//! The one table of limits and time-outs (D15).
//!
//! Everything with a bound takes it from here: by name in the configuration file, by [`Limit`] in the code, and
//! as `docs/limits.md` for readers.

mod rows;

use std::fmt::{self, Write as _};
use std::time::Duration;

use thiserror::Error;

use rows::ROWS;

pub use rows::Limit;

/// The values in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    mode: Mode,
    values: [u64; ROWS.len()],
}

/// Whose figures bound a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The service's hard caps hold: such a limit may be lowered but not raised.
    Service,
    /// The service's caps are defaults; the hardware is the bound.
    #[default]
    Hardware,
}

/// What a row's value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes; settings may say `64KiB` or `10MiB`.
    Bytes,
    /// Milliseconds; settings may say `500ms`, `30s` or `5m`.
    Milliseconds,
    /// A plain number.
    Count,
    /// Hundredths of the whole.
    Percent,
}

/// One limit: its name, bounds and effect.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which limit the row describes.
    pub limit: Limit,
    /// Its name in the configuration file and in messages.
    pub name: &'static str,
    /// What its value counts.
    pub unit: Unit,
    /// The value where nothing is set.
    pub default: u64,
    /// The smallest value that can be set.
    pub minimum: u64,
    /// The largest value that can be set, in mode `hardware`.
    pub maximum: u64,
    /// Whether the default is the service's hard cap, which mode `service` does not let anyone raise.
    pub service_cap: bool,
    /// What happens over the bound.
    pub over: &'static str,
    /// What it bounds.
    pub doc: &'static str,
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum LimitError {
    #[error("there is no limit `{0}`; docs/limits.md lists them all{hint}", hint = did_you_mean(.0))]
    Unknown(String),
    #[error("limit `{name}`: `{value}` is not a number of {unit}, such as {example}")]
    Malformed {
        name: &'static str,
        value: String,
        unit: &'static str,
        example: &'static str,
    },
    #[error("limit `{name}`: {value} is not between {minimum} and {maximum}{because}")]
    OutOfBounds {
        name: &'static str,
        value: u64,
        minimum: u64,
        maximum: u64,
        because: &'static str,
    },
}

impl Limits {
    /// The defaults under a mode.
    pub fn new(mode: Mode) -> Self {
        let mut values = [0; ROWS.len()];
        for (value, row) in values.iter_mut().zip(&ROWS) {
            *value = row.default;
        }
        Limits { mode, values }
    }

    /// Whose figures bound settings.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The whole table.
    pub fn table() -> &'static [Row] {
        &ROWS
    }

    /// The value in force, in the row's unit.
    pub fn get(&self, limit: Limit) -> u64 {
        self.values[limit as usize]
    }

    /// The value in force as a number of bytes or things.
    pub fn count(&self, limit: Limit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }

    /// The value in force as a time; the row's unit is milliseconds.
    pub fn duration(&self, limit: Limit) -> Duration {
        debug_assert_eq!(limit.row().unit, Unit::Milliseconds);
        Duration::from_millis(self.get(limit))
    }

    /// Sets a limit by name from a text such as `64KiB`, `30s` or `500`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let row = find(name)?;
        let number = row.unit.parse(value).ok_or_else(|| LimitError::Malformed {
            name: row.name,
            value: value.chars().take(60).collect(),
            unit: row.unit.name(),
            example: row.unit.example(),
        })?;
        self.set_number(row.limit, number)
    }

    /// Sets a limit in its row's unit.
    pub fn set_number(&mut self, limit: Limit, value: u64) -> Result<(), LimitError> {
        let row = limit.row();
        let capped = row.service_cap && self.mode == Mode::Service;
        let maximum = if capped { row.default } else { row.maximum };
        if !(row.minimum..=maximum).contains(&value) {
            let because = if capped {
                " (the service's cap; `limits = \"hardware\"` lifts it)"
            } else {
                ""
            };
            return Err(LimitError::OutOfBounds {
                name: row.name,
                value,
                minimum: row.minimum,
                maximum,
                because,
            });
        }
        self.values[limit as usize] = value;
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::new(Mode::default())
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "service" => Ok(Mode::Service),
            "hardware" => Ok(Mode::Hardware),
            _ => Err(format!("limits are `service` or `hardware`, not `{text}`")),
        }
    }
}

impl Limit {
    /// The limit's row.
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The limit's name in the configuration file.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Unit {
    fn parse(self, text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'_')
            .count();
        let number: u64 = text[..digits].replace('_', "").parse().ok()?;
        let factor = match (self, text[digits..].trim()) {
            (_, "") => 1,
            (Unit::Bytes, "B") | (Unit::Milliseconds, "ms") | (Unit::Percent, "%") => 1,
            (Unit::Bytes, "KiB") => 1024,
            (Unit::Bytes, "MiB") => 1024 * 1024,
            (Unit::Bytes, "GiB") => 1024 * 1024 * 1024,
            (Unit::Milliseconds, "s") => 1000,
            (Unit::Milliseconds, "m") => 60_000,
            (Unit::Milliseconds, "h") => 3_600_000,
            _ => return None,
        };
        number.checked_mul(factor)
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "milliseconds",
            Unit::Count => "things",
            Unit::Percent => "percent",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Unit::Bytes => "`64KiB` or `65536`",
            Unit::Milliseconds => "`30s` or `500ms`",
            Unit::Count => "`1000`",
            Unit::Percent => "`20%`",
        }
    }

    /// A value as a reader wants it: `10 KiB`, `30 s`.
    pub fn show(self, value: u64) -> String {
        let scaled = |units: &[(u64, &str)]| {
            let fits = units
                .iter()
                .find(|(size, _)| value >= *size && value.is_multiple_of(*size));
            let (size, unit) = fits.copied().unwrap_or((1, ""));
            format!("{} {unit}", value / size).trim_end().to_owned()
        };
        match self {
            Unit::Bytes => scaled(&[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")]),
            Unit::Milliseconds => scaled(&[(3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")]),
            Unit::Count => value.to_string(),
            Unit::Percent => format!("{value}%"),
        }
    }
}

/// The page `docs/limits.md`.
pub fn page() -> String {
    let mut page = String::from(PAGE_TOP);
    for row in &ROWS {
        let cap = if row.service_cap { "yes" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {cap} | {} |",
            row.name,
            row.doc,
            row.unit.show(row.default),
            row.unit.show(row.minimum),
            row.unit.show(row.maximum),
            row.over
        );
    }
    page
}

fn find(name: &str) -> Result<&'static Row, LimitError> {
    let found = ROWS.iter().find(|row| row.name == name);
    found.ok_or_else(|| LimitError::Unknown(name.chars().take(60).collect()))
}

fn did_you_mean(name: &str) -> String {
    let shared = |row: &Row| row.name.split('-').filter(|word| name.contains(word)).count();
    match ROWS.iter().max_by_key(|row| shared(row)) {
        Some(row) if shared(row) > 0 => format!("; is `{}` meant?", row.name),
        _ => String::new(),
    }
}

const PAGE_TOP: &str = "\
# Limits and time-outs

Every bound of the data plane, and those of the control plane that can be set, and what happens over each. Each can be set by name under `[limits]` in the \
configuration file; sizes take `KiB`, `MiB` and `GiB`, times `ms`, `s`, `m` and `h`.

With `mode = \"service\"` the rows marked *cap* cannot be raised above their default, which is the service's hard \
cap. With `mode = \"hardware\"`, the default, they can be raised to the maximum.

This page is generated: change the table in `dataplane/plan/src/limits/rows.rs`, then run \
`UPDATE_DOCS=1 cargo test -p tidegate-plan limits`.

| Name | Bounds | Default | Minimum | Maximum | Cap | Over it |
| --- | --- | --- | --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_enum_and_is_sound() {
        for (at, row) in ROWS.iter().enumerate() {
            assert_eq!(row.limit as usize, at, "{}", row.name);
            assert!((row.minimum..=row.maximum).contains(&row.default), "{}", row.name);
            assert_eq!(
                ROWS.iter().filter(|other| other.name == row.name).count(),
                1,
                "{}",
                row.name
            );
            assert!(
                row.name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{}",
                row.name
            );
        }
    }

    /// QUO-050, QUO-067, QUO-068, QUO-070, QUO-072
    #[test]
    fn the_services_figures_are_the_defaults() {
        let limits = Limits::default();
        assert_eq!(limits.get(Limit::RequestLineBytes), 10_240);
        assert_eq!(limits.get(Limit::HeaderBytes), 10_240);
        assert_eq!(limits.get(Limit::PayloadBytes), 10_485_760);
        assert_eq!(limits.get(Limit::TemplateIterations), 1000);
        assert_eq!(
            limits.duration(Limit::IntegrationTimeout),
            Duration::from_secs(29)
        );
    }

    #[test]
    fn settings_are_read_with_units() {
        let mut limits = Limits::default();
        for (name, text, value) in [
            ("header-bytes", "16KiB", 16_384),
            ("header-bytes", " 20_000 ", 20_000),
            ("payload-bytes", "1 GiB", 1 << 30),
            ("connect-timeout", "500ms", 500),
            ("connect-timeout", "2s", 2000),
            ("drain-timeout", "1h", 3_600_000),
            ("retry-budget", "10%", 10),
            ("header-fields", "256", 256),
        ] {
            limits.set(name, text).unwrap();
            assert_eq!(limits.get(find(name).unwrap().limit), value, "{name} {text}");
        }
        for (name, text) in [
            ("header-bytes", ""),
            ("header-bytes", "KiB"),
            ("header-bytes", "-1"),
            ("header-bytes", "10s"),
            ("connect-timeout", "1KiB"),
            ("payload-bytes", "99999999999999999999"),
            ("payload-bytes", "18446744073709551615GiB"),
        ] {
            assert!(
                matches!(limits.set(name, text), Err(LimitError::Malformed { .. })),
                "{name} {text}"
            );
        }
    }

    #[test]
    fn the_services_caps_hold_in_mode_service_only() {
        let mut limits = Limits::new(Mode::Service);
        assert!(limits.set("payload-bytes", "5MiB").is_ok());
        let error = limits.set("payload-bytes", "11MiB").unwrap_err();
        assert!(error.to_string().contains("hardware"), "{error}");
        assert!(limits.set("header-fields", "1024").is_ok());
        assert!(Limits::new(Mode::Hardware).set("payload-bytes", "11MiB").is_ok());
    }

    #[test]
    fn an_unknown_name_gets_a_hint() {
        let error = Limits::default().set("keep-alive", "1s").unwrap_err();
        assert!(
            error.to_string().contains("is `keep-alive-timeout` meant?"),
            "{error}"
        );
    }

    /// The page that readers see says what the table says.
    #[test]
    fn the_page_on_limits_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, page()).unwrap();
        }
        let stands = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stands == page(),
            "docs/limits.md is out of date: UPDATE_DOCS=1 cargo test -p tidegate-plan limits"
        );
    }
}
