//! How connections fall to shards.

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::raw::{Connection, get, request};
use tidegate_harness::suite::{Context, Test};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[Test::both_drivers(
    "connections_spread_over_the_shards",
    connections_spread_over_the_shards,
)];

const SHARDS: usize = 8;
const CONNECTIONS: usize = 2_000;

/// Eight shards get their even share of 2,000 new connections, before and after an upgrade. The kernel deals them out by
/// a hash, so that a shard's number is off by 15 as a rule (one standard deviation); off by 100 means that something
/// deals them otherwise.
fn connections_spread_over_the_shards(context: &Context) -> Result<()> {
    let mut up = context.plan().shards(SHARDS).up("up")?;
    for round in ["before an upgrade", "after it"] {
        let before = accepted(up.ready().metrics)?;
        for _ in 0..CONNECTIONS {
            let mut connection = Connection::open(up.ready().http)?;
            connection.send(request("GET", "nobody.example", "/"))?;
            connection.response()?;
        }
        let after = accepted(up.ready().metrics)?;
        let each: Vec<u64> = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .collect();
        let share = (CONNECTIONS / SHARDS) as u64;
        ensure!(
            each.len() == SHARDS && each.iter().all(|own| own.abs_diff(share) < 100),
            "{round}: {each:?}"
        );
        up.run(&["upgrade"])?;
        up.read_again()?;
    }
    Ok(())
}

fn accepted(metrics: std::net::SocketAddr) -> Result<Vec<u64>> {
    let text = get(metrics, "metrics", "/metrics")?.text();
    text.lines()
        .filter(|line| line.starts_with("tidegate_connections_accepted_total{"))
        .map(|line| {
            let value = line.rsplit(' ').next().context("a value")?;
            Ok(value.parse()?)
        })
        .collect()
}
