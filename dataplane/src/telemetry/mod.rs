//! What the data plane says about itself: metrics, the access log, health.
//!
//! A [`Shard`] belongs to each shard and takes one [`RequestRecord`] a request: a few plain stores into counters
//! that only this shard writes, and, where the stage has an access log, one copy into a ring. Everything else
//! happens on helper threads: [`Server`] sums the counters when somebody asks, the [`log`] formats and writes.
//!
//! [`Telemetry`] holds the node's side. The configuration thread asks it for [`SeriesHandle`]s and [`LogHandle`]s
//! and keeps them beside the plan that carries their numbers.

mod exposition;
mod histogram;
pub mod log;
mod node;
mod record;
mod series;
mod serve;
mod shard;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_plan::limits::{Limit, Limits};

pub use histogram::{BOUNDS, BUCKETS};
pub use log::{LogHandle, LogTarget};
pub use node::{Counter, Gauge, Node, NodeInfo, ShardCounters};
pub use record::{Class, GatewayError, IntegrationOutcome, RequestRecord};
pub use series::{Registry, SeriesHandle, Slot};
pub use serve::{GRACE, Server};
pub use shard::Shard;

/// How telemetry is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// What does not change while the process runs.
    pub info: NodeInfo,
    /// Number of shards.
    pub shards: usize,
    /// Most metric series; later ones are counted in an overflow series.
    pub max_series: usize,
    /// Size of each shard's access log ring.
    pub log_ring_bytes: usize,
    /// Longest value in an access log line; longer ones are cut.
    pub log_text_bytes: usize,
    /// Where access logs with a relative destination lie; empty: in the current directory.
    pub log_directory: PathBuf,
}

impl Options {
    /// One shard, and the default bounds.
    pub fn new(info: NodeInfo) -> Options {
        Options::with_limits(info, 1, &Limits::default())
    }

    /// The bounds of a node's table of limits.
    pub fn with_limits(info: NodeInfo, shards: usize, limits: &Limits) -> Options {
        Options {
            info,
            shards,
            max_series: limits.count(Limit::MetricSeries),
            log_ring_bytes: limits.count(Limit::AccessLogRing),
            log_text_bytes: limits.count(Limit::AccessLogTextBytes),
            log_directory: PathBuf::new(),
        }
    }
}

/// The node's telemetry. Shared by the helper threads; dropping the last one writes the access log out.
#[derive(Debug)]
pub struct Telemetry {
    node: Node,
    series: Registry,
    log: log::Writer,
}

impl Telemetry {
    /// Starts the access log's thread and gives each shard its recorder, in order.
    pub fn start(options: Options) -> io::Result<(Arc<Telemetry>, Vec<Shard>)> {
        let node = Node::new(options.info, options.shards);
        let series = Registry::new(options.shards, options.max_series);
        let writer = log::WriterOptions {
            shards: options.shards,
            ring_bytes: options.log_ring_bytes,
            directory: options.log_directory,
        };
        let (log, rings) = log::Writer::start(writer)?;
        let shards = rings.into_iter().enumerate().map(|(index, ring)| {
            Shard::new(
                Arc::clone(&node.shards()[index]),
                series.bank(index),
                ring,
                options.log_text_bytes,
            )
        });
        let shards = shards.collect();
        Ok((Arc::new(Telemetry { node, series, log }), shards))
    }

    /// The node's own state.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The metric series.
    pub fn series(&self) -> &Registry {
        &self.series
    }

    /// The access log.
    pub fn log(&self) -> &log::Writer {
        &self.log
    }
}
