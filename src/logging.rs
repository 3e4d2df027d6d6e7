//! The program's own log, on standard error: text for terminals, JSON where it is asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `filter` is a level or `target=level` pairs; `format` is `text` or `json`. Called once.
pub(crate) fn start(filter: Option<&str>, format: Option<&str>, default_filter: &str) -> anyhow::Result<()> {
    let text = filter.unwrap_or(default_filter);
    let filter = EnvFilter::try_new(text)
        .map_err(|error| anyhow::anyhow!("the log filter `{text}` is not understood: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if format == Some("json") {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
