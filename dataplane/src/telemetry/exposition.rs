//! `/metrics`: the node's numbers in the Prometheus text format, piece by piece.
//!
//! A node may have 50,000 series of forty lines each, so the text is made while it is sent and never held whole.
//! `docs/metrics.md` lists what stands here.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Telemetry;
use super::histogram::{BOUNDS, HistogramTotal};
use super::node::{ShardCounters, resident_bytes};
use super::series::{Labels, Slot, Total};

/// What a scrape is made from, and how far it has come.
#[derive(Debug)]
pub(super) struct Exposition {
    telemetry: Arc<Telemetry>,
    series: Vec<(Slot, Arc<Labels>)>,
    /// The next family: the node's own first, then those of [`FAMILIES`].
    family: usize,
    /// The next of `series` in the family.
    next: usize,
    /// Whether the family's header is out. A family without series has none.
    begun: bool,
}

/// A metric of APIs.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    /// Of methods, or of stages.
    of_methods: bool,
    write: fn(&mut String, name: &str, labels: &str, total: &Total) -> fmt::Result,
}

const FAMILIES: [Family; 8] = [
    Family {
        name: "tidegate_requests_total",
        help: "Requests of a stage (Count).",
        kind: "counter",
        of_methods: false,
        write: requests,
    },
    Family {
        name: "tidegate_request_errors_total",
        help: "Requests of a stage that ended in an error (4XXError, 5XXError).",
        kind: "counter",
        of_methods: false,
        write: errors,
    },
    Family {
        name: "tidegate_latency_seconds",
        help: "From the request's first byte to the response's last (Latency).",
        kind: "histogram",
        of_methods: false,
        write: latency,
    },
    Family {
        name: "tidegate_integration_latency_seconds",
        help: "From relaying a request to the backend until its response (IntegrationLatency).",
        kind: "histogram",
        of_methods: false,
        write: integration,
    },
    Family {
        name: "tidegate_method_requests_total",
        help: "Requests of a method, where detailed metrics are on (Count).",
        kind: "counter",
        of_methods: true,
        write: requests,
    },
    Family {
        name: "tidegate_method_request_errors_total",
        help: "Requests of a method that ended in an error (4XXError, 5XXError).",
        kind: "counter",
        of_methods: true,
        write: errors,
    },
    Family {
        name: "tidegate_method_latency_seconds",
        help: "From the request's first byte to the response's last, of a method (Latency).",
        kind: "histogram",
        of_methods: true,
        write: latency,
    },
    Family {
        name: "tidegate_method_integration_latency_seconds",
        help: "From relaying a request to the backend until its response, of a method (IntegrationLatency).",
        kind: "histogram",
        of_methods: true,
        write: integration,
    },
];

impl Exposition {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Exposition {
        let series = telemetry.series().snapshot();
        Exposition {
            telemetry,
            series,
            family: 0,
            next: 0,
            begun: false,
        }
    }

    /// The next piece of text, about [`PIECE`] long; `None` after the last.
    pub(super) fn piece(&mut self) -> Option<String> {
        let mut out = String::new();
        if self.family == 0 {
            // Writing to a string does not fail.
            let _ = write_node(&mut out, &self.telemetry);
            self.family = 1;
        }
        while let Some(family) = FAMILIES.get(self.family - 1) {
            while let Some((slot, labels)) = self.series.get(self.next) {
                if labels.method.is_some() == family.of_methods {
                    if !self.begun {
                        self.begun = true;
                        let _ = header(&mut out, family.name, family.kind, family.help);
                    }
                    let total = self.telemetry.series().total(*slot);
                    let _ = (family.write)(&mut out, family.name, &label_text(labels), &total);
                }
                self.next += 1;
                if out.len() >= PIECE {
                    return Some(out);
                }
            }
            self.next = 0;
            self.begun = false;
            self.family += 1;
        }
        (!out.is_empty()).then_some(out)
    }
}

fn requests(out: &mut String, name: &str, labels: &str, total: &Total) -> fmt::Result {
    writeln!(out, "{name}{{{labels}}} {}", total.latency.count())
}

fn errors(out: &mut String, name: &str, labels: &str, total: &Total) -> fmt::Result {
    writeln!(out, "{name}{{{labels},class=\"4xx\"}} {}", total.client_errors)?;
    writeln!(out, "{name}{{{labels},class=\"5xx\"}} {}", total.server_errors)
}

fn latency(out: &mut String, name: &str, labels: &str, total: &Total) -> fmt::Result {
    histogram(out, name, labels, &total.latency)
}

fn integration(out: &mut String, name: &str, labels: &str, total: &Total) -> fmt::Result {
    histogram(out, name, labels, &total.integration)
}

fn histogram(out: &mut String, name: &str, labels: &str, total: &HistogramTotal) -> fmt::Result {
    let mut sum = 0;
    for ((bound, _), count) in BOUNDS.iter().zip(&total.buckets) {
        sum += count;
        writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
    }
    let count = total.count();
    writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{{{labels}}} {}", total.sum_ns as f64 / 1e9)?;
    writeln!(out, "{name}_count{{{labels}}} {count}")
}

fn label_text(labels: &Labels) -> String {
    let mut out = String::new();
    label(&mut out, "api", &labels.api);
    label(&mut out, "api_name", &labels.api_name);
    label(&mut out, "stage", &labels.stage);
    if let Some((resource, method)) = &labels.method {
        label(&mut out, "resource", resource);
        label(&mut out, "method", method);
    }
    out
}

fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn write_node(out: &mut String, telemetry: &Telemetry) -> fmt::Result {
    let node = telemetry.node();
    let info = node.info();
    let mut labels = String::new();
    label(&mut labels, "version", &info.version);
    label(&mut labels, "driver", &info.driver);
    header(
        out,
        "tidegate_node_info",
        "gauge",
        "Always 1; its labels say what runs.",
    )?;
    writeln!(out, "tidegate_node_info{{{labels}}} 1")?;

    let single = |out: &mut String, name: &str, kind: &str, help: &str, value: u64| {
        header(out, name, kind, help)?;
        writeln!(out, "{name} {value}")
    };
    let ready = u64::from(node.not_ready_because().is_empty());
    single(
        out,
        "tidegate_ready",
        "gauge",
        "1 when the node takes traffic.",
        ready,
    )?;
    let draining = u64::from(node.draining());
    single(
        out,
        "tidegate_draining",
        "gauge",
        "1 when the node finishes what was begun.",
        draining,
    )?;
    let revision = node.revision();
    single(
        out,
        "tidegate_config_revision",
        "gauge",
        "Revision that every shard runs.",
        revision,
    )?;
    let shards = node.shards().len() as u64;
    single(out, "tidegate_shards", "gauge", "Shards of this node.", shards)?;
    let series = telemetry.series().len() as u64;
    single(
        out,
        "tidegate_metric_series",
        "gauge",
        "Stages and methods that have series.",
        series,
    )?;
    let started = node.started_unix_seconds();
    single(
        out,
        "process_start_time_seconds",
        "gauge",
        "When the process began, since 1970.",
        started,
    )?;
    if let Some(bytes) = resident_bytes() {
        single(
            out,
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the process in RAM.",
            bytes,
        )?;
    }

    let log = telemetry.log().stats();
    single(
        out,
        "tidegate_access_log_lines_total",
        "counter",
        "Access log lines written.",
        log.written,
    )?;
    let name = "tidegate_access_log_dropped_total";
    header(out, name, "counter", "Access log lines lost, by reason.")?;
    writeln!(out, "{name}{{reason=\"ring_full\"}} {}", log.dropped_full)?;
    writeln!(out, "{name}{{reason=\"write_failed\"}} {}", log.dropped_failed)?;

    for family in &SHARD_FAMILIES {
        header(out, family.name, family.kind, family.help)?;
        for (index, shard) in node.shards().iter().enumerate() {
            for (label, value) in family.values {
                let value = value(shard);
                writeln!(out, "{}{{shard=\"{index}\"{label}}} {value}", family.name)?;
            }
        }
    }
    Ok(())
}

/// A metric of shards.
struct ShardFamily {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: &'static [Value],
}

/// Further labels, and the number.
type Value = (&'static str, fn(&ShardCounters) -> u64);

const SHARD_FAMILIES: [ShardFamily; 20] = [
    ShardFamily {
        name: "tidegate_shard_requests_total",
        kind: "counter",
        help: "Requests answered by a shard, whether they reached an API or not.",
        values: &[("", |shard| shard.requests.get())],
    },
    ShardFamily {
        name: "tidegate_requests_in_flight",
        kind: "gauge",
        help: "Requests begun and not finished.",
        values: &[("", |shard| shard.in_flight.get())],
    },
    ShardFamily {
        name: "tidegate_connections_accepted_total",
        kind: "counter",
        help: "Client connections accepted.",
        values: &[("", |shard| shard.accepted.get())],
    },
    ShardFamily {
        name: "tidegate_connections",
        kind: "gauge",
        help: "Client connections open.",
        values: &[("", |shard| shard.connections.get())],
    },
    ShardFamily {
        name: "tidegate_proxy_header_failures_total",
        kind: "counter",
        help: "Connections closed for want of a PROXY protocol header of a listed network.",
        values: &[("", |shard| shard.proxy_header_failures.get())],
    },
    ShardFamily {
        name: "tidegate_connections_held_total",
        kind: "counter",
        help: "Times that a listener stood at the bound of connections.",
        values: &[("", |shard| shard.connections_held.get())],
    },
    ShardFamily {
        name: "tidegate_connections_yielded_total",
        kind: "counter",
        help: "Idle client connections closed to make room for others.",
        values: &[("", |shard| shard.connections_yielded.get())],
    },
    ShardFamily {
        name: "tidegate_newcomers_delayed_total",
        kind: "counter",
        help: "Accepts and TLS handshakes that waited for their turn on a busy shard.",
        values: &[("", |shard| shard.newcomers_delayed.get())],
    },
    ShardFamily {
        name: "tidegate_overload_refusals_total",
        kind: "counter",
        help: "Requests refused because too many waited for the backend.",
        values: &[
            (",answer=\"503\"", |shard| shard.overload_answered.get()),
            (",answer=\"none\"", |shard| shard.overload_closed.get()),
        ],
    },
    ShardFamily {
        name: "tidegate_tls_handshake_failures_total",
        kind: "counter",
        help: "TLS handshakes with clients that failed.",
        values: &[("", |shard| shard.handshake_failures.get())],
    },
    ShardFamily {
        name: "tidegate_http2_connections_total",
        kind: "counter",
        help: "Client connections that speak HTTP/2.",
        values: &[("", |shard| shard.http2_connections.get())],
    },
    ShardFamily {
        name: "tidegate_http2_streams_total",
        kind: "counter",
        help: "HTTP/2 streams accepted.",
        values: &[("", |shard| shard.http2_streams.get())],
    },
    ShardFamily {
        name: "tidegate_http2_floods_total",
        kind: "counter",
        help: "HTTP/2 connections ended for flooding (ENHANCE_YOUR_CALM).",
        values: &[("", |shard| shard.http2_floods.get())],
    },
    ShardFamily {
        name: "tidegate_tunnels_total",
        kind: "counter",
        help: "Exchanges that became tunnels.",
        values: &[("", |shard| shard.tunnels.get())],
    },
    ShardFamily {
        name: "tidegate_panics_total",
        kind: "counter",
        help: "Panics caught; each ended one connection.",
        values: &[("", |shard| shard.panics.load(Ordering::Relaxed))],
    },
    ShardFamily {
        name: "tidegate_sends_total",
        kind: "counter",
        help: "Sends to clients and backends.",
        values: &[("", |shard| shard.sends.load(Ordering::Relaxed))],
    },
    ShardFamily {
        name: "tidegate_upstream_connects_total",
        kind: "counter",
        help: "Connections to backends, by outcome.",
        values: &[
            (",outcome=\"made\"", |shard| shard.upstream_connects.get()),
            (",outcome=\"failed\"", |shard| {
                shard.upstream_connect_failures.get()
            }),
        ],
    },
    ShardFamily {
        name: "tidegate_upstream_ejections_total",
        kind: "counter",
        help: "Addresses of backends that took no connections and got none for a while.",
        values: &[("", |shard| shard.upstream_ejections.get())],
    },
    ShardFamily {
        name: "tidegate_upstream_connections",
        kind: "gauge",
        help: "Connections to backends, by state.",
        values: &[
            (",state=\"active\"", |shard| shard.upstream_active.get()),
            (",state=\"idle\"", |shard| shard.upstream_idle.get()),
        ],
    },
    ShardFamily {
        name: "tidegate_buffer_pool_bytes",
        kind: "gauge",
        help: "Memory of a shard's buffer pool, by state.",
        values: &[
            (",state=\"used\"", |shard| shard.pool_used_bytes.get()),
            (",state=\"free\"", |shard| shard.pool_free_bytes.get()),
        ],
    },
];

/// Text sent at a time.
const PIECE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::telemetry::{GatewayError, IntegrationOutcome, NodeInfo, Options, RequestRecord, Shard};

    fn telemetry(shards: usize) -> (Arc<Telemetry>, Vec<Shard>) {
        let info = NodeInfo {
            version: "0.1.0".into(),
            driver: "epoll".into(),
            boot_id: "b".into(),
        };
        Telemetry::start(Options {
            shards,
            ..Options::new(info)
        })
        .unwrap()
    }

    fn text(telemetry: &Arc<Telemetry>) -> String {
        let mut exposition = Exposition::new(Arc::clone(telemetry));
        std::iter::from_fn(|| exposition.piece()).collect()
    }

    fn record(status: u16) -> RequestRecord<'static> {
        RequestRecord {
            stage: None,
            method: None,
            log: None,
            received_unix_ms: 0,
            latency_ns: 2_000_000,
            status,
            response_length: 0,
            error: None,
            integration: None,
            source_ip: IpAddr::from([127, 0, 0, 1]),
            request_id: b"",
            extended_request_id: b"",
            http_method: b"GET",
            path: b"/",
            resource_path: b"/",
            resource_id: b"",
            domain_name: b"",
            user_agent: b"",
        }
    }

    /// OBS-004: 10 requests of which 2 end 403 and 1 ends 502; OBS-006: a customised status counts by its type.
    #[test]
    fn counts_and_errors_are_summed_over_the_shards() {
        let (telemetry, shards) = telemetry(2);
        let stage = telemetry.series().stage("a1", "petstöre", "prod");
        let record_on = |shard: usize, mut record: RequestRecord<'static>| {
            record.stage = Some(stage.slot());
            shards[shard].record(&record);
        };
        for request in 0..7 {
            let called = IntegrationOutcome {
                latency_ns: 1_500_000,
                status: Some(200),
                error: b"",
            };
            record_on(
                request % 2,
                RequestRecord {
                    integration: Some(called),
                    ..record(200)
                },
            );
        }
        record_on(0, record(403));
        let error = GatewayError {
            response_type: b"ACCESS_DENIED",
            type_status: 403,
            message: b"",
            validation: b"",
        };
        record_on(
            1,
            RequestRecord {
                error: Some(error),
                ..record(200)
            },
        );
        record_on(1, record(502));
        let text = text(&telemetry);
        let labels = "api=\"a1\",api_name=\"petstre\",stage=\"prod\"";
        for line in [
            format!("tidegate_requests_total{{{labels}}} 10"),
            format!("tidegate_request_errors_total{{{labels},class=\"4xx\"}} 2"),
            format!("tidegate_request_errors_total{{{labels},class=\"5xx\"}} 1"),
            format!("tidegate_latency_seconds_bucket{{{labels},le=\"0.001\"}} 0"),
            format!("tidegate_latency_seconds_bucket{{{labels},le=\"0.0025\"}} 10"),
            format!("tidegate_latency_seconds_sum{{{labels}}} 0.02"),
            format!("tidegate_integration_latency_seconds_count{{{labels}}} 7"),
            "tidegate_shard_requests_total{shard=\"1\"} 5".into(),
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("tidegate_method_"));
    }

    /// OBS-009: methods have series only where detailed metrics are on, from the first request on.
    #[test]
    fn method_series_exist_where_detailed_metrics_are_on() {
        let (telemetry, shards) = telemetry(1);
        let stage = telemetry.series().stage("a1", "pets", "prod");
        let method = telemetry
            .series()
            .method("a1", "pets", "prod", "/pets/{\"id\"}", "GET");
        shards[0].record(&RequestRecord {
            stage: Some(stage.slot()),
            ..record(200)
        });
        assert!(!text(&telemetry).contains("tidegate_method_"));
        let detailed = RequestRecord {
            stage: Some(stage.slot()),
            method: Some(method.slot()),
            ..record(200)
        };
        shards[0].record(&detailed);
        let text = text(&telemetry);
        assert!(text.contains("tidegate_requests_total{api=\"a1\",api_name=\"pets\",stage=\"prod\"} 2\n"));
        assert!(text.contains(
            "tidegate_method_requests_total{api=\"a1\",api_name=\"pets\",stage=\"prod\",\
             resource=\"/pets/{\\\"id\\\"}\",method=\"GET\"} 1\n"
        ));
    }

    /// D19: many series, in pieces, each family with one header and its lines together.
    #[test]
    fn many_series_come_in_pieces() {
        let (telemetry, shards) = telemetry(1);
        let handles: Vec<_> = (0..500)
            .map(|api| telemetry.series().stage(&format!("api{api}"), "name", "prod"))
            .collect();
        for handle in &handles {
            shards[0].record(&RequestRecord {
                stage: Some(handle.slot()),
                ..record(200)
            });
        }
        let mut exposition = Exposition::new(Arc::clone(&telemetry));
        let pieces: Vec<String> = std::iter::from_fn(|| exposition.piece()).collect();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 2 * PIECE));
        let text = pieces.concat();
        let mut types: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("tidegate_requests_total{"))
                .count(),
            500
        );
    }

    /// Every family is explained in docs/metrics.md.
    #[test]
    fn the_documentation_names_every_metric() {
        let page = include_str!("../../../docs/metrics.md");
        let (telemetry, shards) = telemetry(1);
        let (stage, method) = (
            telemetry.series().stage("a", "a", "s"),
            telemetry.series().method("a", "a", "s", "/", "GET"),
        );
        shards[0].record(&RequestRecord {
            stage: Some(stage.slot()),
            method: Some(method.slot()),
            ..record(200)
        });
        for line in text(&telemetry)
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
        {
            let name = line.split(' ').next().unwrap();
            assert!(
                page.contains(&format!("`{name}`")),
                "docs/metrics.md does not explain {name}"
            );
        }
    }
}
