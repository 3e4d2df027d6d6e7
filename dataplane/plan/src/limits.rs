//! The one table of limits and time-outs (D15).
//!
//! Everything with a bound takes it from here: by name in the configuration file, by [`Limit`] in the code, and
//! as `docs/limits.md` for readers.

use std::fmt::{self, Write as _};
use std::time::Duration;

use thiserror::Error;

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

This page is generated: change the table in `dataplane/plan/src/limits.rs`, then run \
`UPDATE_DOCS=1 cargo test -p tidegate-plan limits`.

| Name | Bounds | Default | Minimum | Maximum | Cap | Over it |
| --- | --- | --- | --- | --- | --- | --- |
";

/// Every limit, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described by its row")]
pub enum Limit {
    RequestLineBytes,
    HeaderBytes,
    HeaderFields,
    RequestHeadBytes,
    PayloadBytes,
    ResponseHeadBytes,
    ResponseHeaderFields,
    ChunkExtensionBytes,
    TrailerBytes,
    InformationalResponses,
    TlsHandshakeTimeout,
    ProxyHeaderTimeout,
    ProxyHeaderBytes,
    RequestHeadTimeout,
    BodyIdleTimeout,
    WriteStallTimeout,
    KeepAliveTimeout,
    AnswerHold,
    ConnectTimeout,
    ConnectAttemptDelay,
    PoolWaitTimeout,
    StreamIdleTimeout,
    TunnelIdleTimeout,
    IntegrationTimeout,
    DrainTimeout,
    WatchDelay,
    UpgradeTimeout,
    RetireIdleTimeout,
    LingerTimeout,
    LingerBytes,
    ConnectionsPerShard,
    YieldAfter,
    ReadAheadBytes,
    BodyWindowBytes,
    Http2ConcurrentStreams,
    Http2StreamsPerShard,
    Http2StreamWindowBytes,
    Http2ConnectionWindowBytes,
    Http2SendBufferBytes,
    Http2SmallDataBytes,
    Http2StreamErrors,
    Http2RefillTime,
    Http2Resets,
    Http2Pings,
    Http2Settings,
    Http2WindowUpdates,
    Http2EmptyFrames,
    Http2IgnoredFrames,
    Http2Continuations,
    UpstreamConnectionsPerTarget,
    UpstreamIdlePerTarget,
    UpstreamIdleMin,
    UpstreamIdleTimeout,
    UpstreamCheckInterval,
    UpstreamDistrustTime,
    UpstreamWaiters,
    UpstreamAddresses,
    UpstreamTlsSessions,
    UpstreamHttp2Streams,
    UpstreamHttp2StreamWindowBytes,
    UpstreamHttp2ConnectionWindowBytes,
    UpstreamHttp2PingAfter,
    UpstreamHttp2PingTimeout,
    EjectionFailures,
    EjectionTime,
    EjectionTimeMax,
    EjectionPercent,
    RetryHoldBytes,
    RetryBudget,
    RetryBurst,
    DnsTtlMin,
    DnsTtlMax,
    DnsFailureTtl,
    DnsStaleTime,
    DnsTimeout,
    DnsCacheEntries,
    DnsQueries,
    ListenBacklog,
    DeferAccept,
    FastOpen,
    TcpNodelay,
    ClientKeepaliveIdle,
    ClientUserTimeout,
    UpstreamKeepaliveIdle,
    UpstreamUserTimeout,
    KeepaliveInterval,
    KeepaliveProbes,
    SocketReceiveBytes,
    SocketSendBytes,
    SocketUnsentBytes,
    BufferPoolBytes,
    ShardMail,
    OverloadBudget,
    NewcomerShare,
    NewcomersPerTurn,
    RoutesPerApi,
    StagesPerNode,
    BundleBytes,
    DeltaChunkBytes,
    TestInvokeBodyBytes,
    ImportBytes,
    AdminConnections,
    TicketKeyRotation,
    AccessLogRing,
    AccessLogTextBytes,
    MetricSeries,
    ThrottleCells,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

const fn row(
    limit: Limit,
    name: &'static str,
    unit: Unit,
    [default, minimum, maximum]: [u64; 3],
    over: &'static str,
    doc: &'static str,
) -> Row {
    Row {
        limit,
        name,
        unit,
        default,
        minimum,
        maximum,
        service_cap: false,
        over,
        doc,
    }
}

/// A row whose default is the service's hard cap.
const fn cap(row: Row) -> Row {
    Row {
        service_cap: true,
        ..row
    }
}

#[rustfmt::skip]
const ROWS: [Row; 107] = [
    // Requests.
    cap(row(Limit::RequestLineBytes, "request-line-bytes", Unit::Bytes, [10 * KIB, 256, 64 * KIB],
        "414, connection closed", "A request's first line: method, target, version (QUO-050)")),
    cap(row(Limit::HeaderBytes, "header-bytes", Unit::Bytes, [10 * KIB, 256, 64 * KIB],
        "431, connection closed", "The sum of a request's header values (QUO-068)")),
    row(Limit::HeaderFields, "header-fields", Unit::Count, [128, 16, 1024],
        "431, connection closed", "The number of a request's header fields"),
    row(Limit::RequestHeadBytes, "request-head-bytes", Unit::Bytes, [32 * KIB, KIB, 256 * KIB],
        "431, connection closed", "A whole request head: first line, names, values and blanks"),
    cap(row(Limit::PayloadBytes, "payload-bytes", Unit::Bytes, [10 * MIB, 0, 1024 * GIB],
        "413 for a request, 500 for a response", "A body, each way (QUO-070)")),
    row(Limit::ResponseHeadBytes, "response-head-bytes", Unit::Bytes, [32 * KIB, KIB, 256 * KIB],
        "502, backend connection closed", "A whole response head of a backend"),
    row(Limit::ResponseHeaderFields, "response-header-fields", Unit::Count, [128, 16, 1024],
        "502, backend connection closed", "The number of a backend's response header fields"),
    row(Limit::ChunkExtensionBytes, "chunk-extension-bytes", Unit::Bytes, [KIB, 0, 64 * KIB],
        "400 or 502, connection closed", "The extensions of all chunks of a body together"),
    row(Limit::TrailerBytes, "trailer-bytes", Unit::Bytes, [8 * KIB, 0, 64 * KIB],
        "400 or 502, connection closed", "A body's trailer section, which is dropped unless `x-tidegate-pass-through` lets trailers pass"),
    row(Limit::InformationalResponses, "informational-responses", Unit::Count, [8, 0, 100],
        "502, backend connection closed", "Responses 1xx of a backend before its final one"),
    // Times.
    row(Limit::TlsHandshakeTimeout, "tls-handshake-timeout", Unit::Milliseconds, [10 * SECOND, 100, 10 * MINUTE],
        "connection closed", "From accept to the end of the TLS handshake"),
    row(Limit::ProxyHeaderTimeout, "proxy-header-timeout", Unit::Milliseconds, [3 * SECOND, 10, MINUTE],
        "connection closed", "From accept to the end of the PROXY protocol's header, where a listener requires one"),
    row(Limit::ProxyHeaderBytes, "proxy-header-bytes", Unit::Bytes, [2 * KIB, 107, 65_551],
        "connection closed", "A PROXY protocol header; version 1 never has more than 107"),
    row(Limit::RequestHeadTimeout, "request-head-timeout", Unit::Milliseconds, [10 * SECOND, 100, 10 * MINUTE],
        "408, connection closed", "From a request's first byte to the end of its head"),
    row(Limit::BodyIdleTimeout, "body-idle-timeout", Unit::Milliseconds, [30 * SECOND, 100, HOUR],
        "408, connection closed", "For more of a request's body, where the client is waited for"),
    row(Limit::WriteStallTimeout, "write-stall-timeout", Unit::Milliseconds, [30 * SECOND, 100, HOUR],
        "connection reset", "While a peer takes nothing of what is to be sent"),
    row(Limit::KeepAliveTimeout, "keep-alive-timeout", Unit::Milliseconds, [75 * SECOND, 0, HOUR],
        "connection closed", "Between two requests on one connection"),
    row(Limit::AnswerHold, "answer-hold", Unit::Milliseconds, [1, 0, MINUTE],
        "sent without it", "How long an answer waits to be sent together with the next, where that one's request is here already"),
    row(Limit::ConnectTimeout, "connect-timeout", Unit::Milliseconds, [3 * SECOND, 10, MINUTE],
        "504", "To connect to a backend, TLS included"),
    row(Limit::ConnectAttemptDelay, "connect-attempt-delay", Unit::Milliseconds, [250, 10, 2 * SECOND],
        "the next address is tried beside it", "For one address of a backend to take a connection (RFC 8305)"),
    row(Limit::PoolWaitTimeout, "pool-wait-timeout", Unit::Milliseconds, [SECOND, 0, MINUTE],
        "504", "For a free connection when a target has all it may have"),
    row(Limit::StreamIdleTimeout, "stream-idle-timeout", Unit::Milliseconds, [MINUTE, 100, HOUR],
        "connection reset", "Between two reads of a streamed response body"),
    row(Limit::TunnelIdleTimeout, "tunnel-idle-timeout", Unit::Milliseconds, [10 * MINUTE, 100, 24 * HOUR],
        "both connections closed", "While neither side of a tunnel says anything, where a backend has switched protocols"),
    row(Limit::IntegrationTimeout, "integration-timeout", Unit::Milliseconds, [29 * SECOND, 50, 5 * MINUTE],
        "504", "From calling a backend to its response's head where the integration sets no time-out; waiting for nobody but the client does not count (QUO-067)"),
    row(Limit::DrainTimeout, "drain-timeout", Unit::Milliseconds, [30 * SECOND, 0, HOUR],
        "connections closed", "From the signal to stop to the end of the last request"),
    row(Limit::WatchDelay, "watch-delay", Unit::Milliseconds, [50, 1, 10 * SECOND],
        "the other side is watched", "A wait, before it is looked whether a waiting client or an idle backend has gone"),
    row(Limit::UpgradeTimeout, "upgrade-timeout", Unit::Milliseconds, [MINUTE, 100, HOUR],
        "the new process is ended, the old one goes on", "For a new process to get ready to take over from the running one (D17)"),
    row(Limit::RetireIdleTimeout, "retire-idle-timeout", Unit::Milliseconds, [10 * SECOND, 0, HOUR],
        "connection closed", "After an upgrade, for one more request on a connection of the old process"),
    row(Limit::LingerTimeout, "linger-timeout", Unit::Milliseconds, [2 * SECOND, 0, MINUTE],
        "connection closed", "To read on after an error answer, so that the client sees it"),
    row(Limit::LingerBytes, "linger-bytes", Unit::Bytes, [256 * KIB, 0, 64 * MIB],
        "connection closed", "What is read on after an error answer"),
    // Connections.
    row(Limit::ConnectionsPerShard, "connections-per-shard", Unit::Count, [65_536, 16, 4_194_304],
        "idle connections closed, then no more accepted", "Client connections of one shard"),
    row(Limit::YieldAfter, "yield-after", Unit::Milliseconds, [SECOND, 0, HOUR],
        "closed when another connection needs the place", "How long a connection is idle before it may be closed to make room"),
    row(Limit::ReadAheadBytes, "read-ahead-bytes", Unit::Bytes, [16 * KIB, 1, MIB],
        "no more is read", "Requests of one connection that came before the one before them is answered"),
    row(Limit::BodyWindowBytes, "body-window-bytes", Unit::Bytes, [128 * KIB, 16 * KIB, 16 * MIB],
        "no more is read", "Body bytes held between a reader and a slower writer"),
    // HTTP/2.
    row(Limit::Http2ConcurrentStreams, "http2-concurrent-streams", Unit::Count, [128, 1, 4096],
        "the stream is refused", "Streams of one connection at a time"),
    row(Limit::Http2StreamsPerShard, "http2-streams-per-shard", Unit::Count, [65_536, 16, 4_194_304],
        "the stream is refused", "Streams of one shard at a time, over all of its connections"),
    row(Limit::Http2StreamWindowBytes, "http2-stream-window-bytes", Unit::Bytes, [64 * KIB, 16 * KIB, 16 * MIB],
        "stream reset: FLOW_CONTROL_ERROR", "A request body's bytes that nobody has asked for yet, per stream"),
    row(Limit::Http2ConnectionWindowBytes, "http2-connection-window-bytes", Unit::Bytes, [MIB, 64 * KIB, GIB],
        "GOAWAY FLOW_CONTROL_ERROR", "The same of all streams of a connection together"),
    row(Limit::Http2SendBufferBytes, "http2-send-buffer-bytes", Unit::Bytes, [64 * KIB, 16 * KIB, 16 * MIB],
        "no more is read", "A response body's bytes, per stream, that wait for their connection"),
    row(Limit::Http2SmallDataBytes, "http2-small-data-bytes", Unit::Bytes, [512 * KIB, 16 * KIB, GIB],
        "GOAWAY ENHANCE_YOUR_CALM", "By how much DATA frames that nobody has asked for yet fall short of 256 bytes each, over a connection"),
    row(Limit::Http2StreamErrors, "http2-stream-errors", Unit::Count, [1024, 16, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "Streams of one connection, over its life, that end in an error of the client's or are refused"),
    row(Limit::Http2RefillTime, "http2-refill-time", Unit::Milliseconds, [10 * SECOND, 100, HOUR],
        "", "In which the numbers of frames below, once used up, are whole again"),
    row(Limit::Http2Resets, "http2-resets", Unit::Count, [500, 1, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "RST_STREAM frames of one connection at once"),
    row(Limit::Http2Pings, "http2-pings", Unit::Count, [100, 1, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "PING frames of one connection at once, one more for each DATA frame sent to it"),
    row(Limit::Http2Settings, "http2-settings", Unit::Count, [32, 2, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "SETTINGS frames of one connection at once"),
    row(Limit::Http2WindowUpdates, "http2-window-updates", Unit::Count, [1000, 16, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "WINDOW_UPDATE frames of one connection at once, four more for each DATA frame sent to it and two for each stream"),
    row(Limit::Http2EmptyFrames, "http2-empty-frames", Unit::Count, [100, 1, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "DATA, HEADERS and CONTINUATION frames of one connection at once that carry nothing and end nothing"),
    row(Limit::Http2IgnoredFrames, "http2-ignored-frames", Unit::Count, [1000, 16, 1_048_576],
        "GOAWAY ENHANCE_YOUR_CALM", "PRIORITY frames and frames of unknown kinds of one connection at once"),
    row(Limit::Http2Continuations, "http2-continuations", Unit::Count, [4, 0, 5],
        "GOAWAY ENHANCE_YOUR_CALM", "CONTINUATION frames of one field block"),
    // Upstreams.
    row(Limit::UpstreamConnectionsPerTarget, "upstream-connections-per-target", Unit::Count, [1024, 1, 65_536],
        "waits, then 504", "Connections to one backend, over all shards of the node"),
    row(Limit::UpstreamIdlePerTarget, "upstream-idle-per-target", Unit::Count, [1024, 0, 65_536],
        "the oldest is closed", "Idle connections to one backend that a shard keeps"),
    row(Limit::UpstreamIdleMin, "upstream-idle-min", Unit::Count, [0, 0, 1024],
        "no more are opened", "Idle connections to one backend that a shard opens before they are asked for"),
    row(Limit::UpstreamIdleTimeout, "upstream-idle-timeout", Unit::Milliseconds, [MINUTE, 0, HOUR],
        "connection closed", "How long an idle connection to a backend is kept"),
    row(Limit::UpstreamCheckInterval, "upstream-check-interval", Unit::Milliseconds, [5 * SECOND, 100, MINUTE],
        "idle connections are looked at", "Between two looks at the age and number of idle connections to backends"),
    row(Limit::UpstreamDistrustTime, "upstream-distrust-time", Unit::Milliseconds, [MINUTE, 0, HOUR],
        "trusted again", "How long idle connections are looked at before each use, once a backend has hung up on one"),
    row(Limit::UpstreamWaiters, "upstream-waiters", Unit::Count, [1024, 0, 65_536],
        "504", "Requests of one shard that wait for a connection to one backend"),
    row(Limit::UpstreamAddresses, "upstream-addresses", Unit::Count, [64, 1, 64],
        "the rest is not used", "Addresses of one backend"),
    row(Limit::UpstreamTlsSessions, "upstream-tls-sessions", Unit::Count, [32, 0, 4096],
        "the oldest is dropped", "TLS sessions with one backend that a shard keeps to resume"),
    row(Limit::UpstreamHttp2Streams, "upstream-http2-streams", Unit::Count, [100, 1, 4096],
        "another connection is opened", "HTTP/2 streams of one connection to a backend at a time, where the backend allows as many"),
    row(Limit::UpstreamHttp2StreamWindowBytes, "upstream-http2-stream-window-bytes", Unit::Bytes, [128 * KIB, 16 * KIB, 16 * MIB],
        "stream reset: FLOW_CONTROL_ERROR", "A response body's bytes that nobody has asked for yet, per stream"),
    row(Limit::UpstreamHttp2ConnectionWindowBytes, "upstream-http2-connection-window-bytes", Unit::Bytes, [MIB, 64 * KIB, GIB],
        "GOAWAY FLOW_CONTROL_ERROR", "The same of all streams of a connection together"),
    row(Limit::UpstreamHttp2PingAfter, "upstream-http2-ping-after", Unit::Milliseconds, [30 * SECOND, 100, HOUR],
        "a PING is sent", "Silence of a backend with open HTTP/2 streams"),
    row(Limit::UpstreamHttp2PingTimeout, "upstream-http2-ping-timeout", Unit::Milliseconds, [10 * SECOND, 100, 10 * MINUTE],
        "connection closed, its streams fail", "For a backend's answer to a PING"),
    row(Limit::EjectionFailures, "ejection-failures", Unit::Count, [5, 0, 1000],
        "the address gets no connections for a while; at 0 that never happens", "Connections in a row that an address of a backend did not take"),
    row(Limit::EjectionTime, "ejection-time", Unit::Milliseconds, [30 * SECOND, 100, HOUR],
        "tried again", "How long an address gets no connections; doubles with each ejection in a row"),
    row(Limit::EjectionTimeMax, "ejection-time-max", Unit::Milliseconds, [5 * MINUTE, 100, 24 * HOUR],
        "tried again", "How long an address gets no connections at most"),
    row(Limit::EjectionPercent, "ejection-percent", Unit::Percent, [50, 0, 99],
        "no more are ejected", "Addresses of one backend that get no connections at the same time"),
    row(Limit::RetryHoldBytes, "retry-hold-bytes", Unit::Bytes, [64 * KIB, 0, MIB],
        "no retry", "A request body that is held so that the request can be sent again"),
    row(Limit::RetryBudget, "retry-budget", Unit::Percent, [20, 0, 100],
        "no retry", "Retries in proportion to requests, per backend"),
    row(Limit::RetryBurst, "retry-burst", Unit::Count, [10, 1, 1000],
        "no retry", "Retries in hand after a quiet time, per backend and shard"),
    row(Limit::DnsTtlMin, "dns-ttl-min", Unit::Milliseconds, [SECOND, 0, MINUTE],
        "taken instead of a shorter one", "How long a resolved name is kept at least"),
    row(Limit::DnsTtlMax, "dns-ttl-max", Unit::Milliseconds, [5 * MINUTE, SECOND, HOUR],
        "taken instead of a longer one", "How long a resolved name is kept at most"),
    row(Limit::DnsFailureTtl, "dns-failure-ttl", Unit::Milliseconds, [SECOND, 100, 5 * MINUTE],
        "asked again", "How long a name that cannot be resolved is not asked for again"),
    row(Limit::DnsStaleTime, "dns-stale-time", Unit::Milliseconds, [HOUR, 0, 24 * HOUR],
        "504", "How long the last good answer is used while a name cannot be resolved"),
    row(Limit::DnsTimeout, "dns-timeout", Unit::Milliseconds, [2 * SECOND, 10, MINUTE],
        "stale answer, else 504", "To resolve a backend's name"),
    row(Limit::DnsCacheEntries, "dns-cache-entries", Unit::Count, [10_000, 16, 1_000_000],
        "the oldest is dropped", "Names that a node keeps resolved"),
    row(Limit::DnsQueries, "dns-queries", Unit::Count, [4096, 16, 65_536],
        "504", "Queries for names that wait for the resolver"),
    // Sockets. 0 leaves it to the kernel, or off, unless the row says otherwise.
    row(Limit::ListenBacklog, "listen-backlog", Unit::Count, [4096, 1, 65_535],
        "the client's kernel tries again", "Connections of one listening socket that wait to be accepted; at most net.core.somaxconn"),
    row(Limit::DeferAccept, "defer-accept", Unit::Milliseconds, [0, 0, MINUTE],
        "accepted without", "For a connection's first bytes before it is accepted (TCP_DEFER_ACCEPT, in whole seconds); 0: accepted at once"),
    row(Limit::FastOpen, "fast-open", Unit::Count, [0, 0, 65_535],
        "they connect as usual", "Connections at a time that bring their first bytes with their first packet (TCP_FASTOPEN); what such a packet asks for may be done twice"),
    row(Limit::TcpNodelay, "tcp-nodelay", Unit::Count, [1, 0, 1],
        "", "1: small segments are sent at once (TCP_NODELAY); 0: they wait for what was sent before"),
    row(Limit::ClientKeepaliveIdle, "client-keepalive-idle", Unit::Milliseconds, [MINUTE, 0, 9 * HOUR],
        "the client is asked whether it is there", "How long a client's connection is silent before the kernel asks (SO_KEEPALIVE, TCP_KEEPIDLE, in whole seconds); 0: never"),
    row(Limit::ClientUserTimeout, "client-user-timeout", Unit::Milliseconds, [0, 0, HOUR],
        "the connection is dead", "How long what was sent to a client stays unacknowledged (TCP_USER_TIMEOUT)"),
    row(Limit::UpstreamKeepaliveIdle, "upstream-keepalive-idle", Unit::Milliseconds, [0, 0, 9 * HOUR],
        "the backend is asked whether it is there", "The same as client-keepalive-idle, for backends, each of whose connections it costs four system calls"),
    row(Limit::UpstreamUserTimeout, "upstream-user-timeout", Unit::Milliseconds, [0, 0, HOUR],
        "the connection is dead", "The same as client-user-timeout, for backends"),
    row(Limit::KeepaliveInterval, "keepalive-interval", Unit::Milliseconds, [10 * SECOND, SECOND, HOUR],
        "asked again", "Between two such questions (TCP_KEEPINTVL, in whole seconds)"),
    row(Limit::KeepaliveProbes, "keepalive-probes", Unit::Count, [3, 1, 127],
        "the connection is dead", "Such questions without an answer (TCP_KEEPCNT)"),
    row(Limit::SocketReceiveBytes, "socket-receive-bytes", Unit::Bytes, [0, 0, 64 * MIB],
        "the peer waits", "Bytes of one connection that wait in the kernel to be read (SO_RCVBUF); at most net.core.rmem_max"),
    row(Limit::SocketSendBytes, "socket-send-bytes", Unit::Bytes, [0, 0, 64 * MIB],
        "the sender waits", "Bytes of one connection that wait in the kernel to be sent or acknowledged (SO_SNDBUF); at most net.core.wmem_max"),
    row(Limit::SocketUnsentBytes, "socket-unsent-bytes", Unit::Bytes, [0, 0, 64 * MIB],
        "the sender waits", "Bytes of one connection that the kernel has not sent yet (TCP_NOTSENT_LOWAT)"),
    // Memory and work.
    row(Limit::BufferPoolBytes, "buffer-pool-bytes", Unit::Bytes, [64 * MIB, MIB, 64 * GIB],
        "returned to the allocator", "Free buffers that a shard keeps for reuse"),
    row(Limit::ShardMail, "shard-mail", Unit::Count, [1024, 16, 1_048_576],
        "refused, and counted", "Messages under way to one shard"),
    row(Limit::OverloadBudget, "overload-budget", Unit::Percent, [5, 0, 50],
        "closed without an answer", "CPU time spent on answering 503 when overloaded"),
    row(Limit::NewcomerShare, "newcomer-share", Unit::Percent, [20, 0, 100],
        "they wait", "Time of a busy shard for accepting connections and for TLS handshakes; what nobody else wants comes on top"),
    row(Limit::NewcomersPerTurn, "newcomers-per-turn", Unit::Count, [4, 1, 1024],
        "they wait", "Connections accepted, and handshakes let in, between two looks at what others have to do"),
    // Configuration.
    row(Limit::RoutesPerApi, "routes-per-api", Unit::Count, [10_000, 1, 100_000],
        "the bundle is refused", "Resources of one API"),
    row(Limit::StagesPerNode, "stages-per-node", Unit::Count, [200_000, 1, 2_000_000],
        "the bundle is refused", "Stages that a node serves"),
    row(Limit::BundleBytes, "bundle-bytes", Unit::Bytes, [16 * MIB, 64 * KIB, 256 * MIB],
        "the bundle is refused", "One bundle of configuration"),
    row(Limit::DeltaChunkBytes, "delta-chunk-bytes", Unit::Bytes, [MIB, 64 * KIB, 4 * MIB],
        "the stream is closed", "One message of the configuration stream"),
    row(Limit::TestInvokeBodyBytes, "test-invoke-body-bytes", Unit::Bytes, [MIB, 0, 8 * MIB],
        "cut, and said in the log", "The body that a test invocation gives back"),
    cap(row(Limit::ImportBytes, "import-bytes", Unit::Bytes, [6 * MIB, KIB, 64 * MIB],
        "the import is refused", "An OpenAPI document, at the control plane (QUO-077)")),
    row(Limit::AdminConnections, "admin-connections", Unit::Count, [256, 8, 65_536],
        "waits to be accepted", "Connections to the control plane's Admin API"),
    row(Limit::TicketKeyRotation, "ticket-key-rotation", Unit::Milliseconds, [12 * HOUR, MINUTE, 84 * HOUR],
        "the next key takes its place, and it opens for as long again", "How long one key seals TLS session tickets; set at the control plane for all nodes, at a node for the keys it makes itself when it has been given none (D18)"),
    // Records.
    row(Limit::AccessLogRing, "access-log-ring", Unit::Bytes, [MIB, 64 * KIB, 256 * MIB],
        "dropped, and counted", "Access log records of one shard that wait to be written"),
    row(Limit::AccessLogTextBytes, "access-log-text-bytes", Unit::Bytes, [4 * KIB, 64, 32 * KIB],
        "cut", "One value in a line of an access log"),
    row(Limit::MetricSeries, "metric-series", Unit::Count, [50_000, 16, 1_000_000],
        "counted under one overflow series", "Metric series of a node"),
    row(Limit::ThrottleCells, "throttle-cells", Unit::Count, [1_000_000, 16, 16_000_000],
        "the bundle is refused", "Throttled methods of a node"),
];

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

    /// QUO-050, QUO-067, QUO-068, QUO-070
    #[test]
    fn the_services_figures_are_the_defaults() {
        let limits = Limits::default();
        assert_eq!(limits.get(Limit::RequestLineBytes), 10_240);
        assert_eq!(limits.get(Limit::HeaderBytes), 10_240);
        assert_eq!(limits.get(Limit::PayloadBytes), 10_485_760);
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
