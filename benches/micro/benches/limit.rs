//! What a throttle check costs a request.
#![allow(missing_docs)] // criterion's macros make public functions

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_dataplane::limit::{Credits, Limit, LimitHandle, LimitId, LimitIndex, Nanos, Registry};

/// Name, shards, nanoseconds between two requests, and the limits: rate and burst.
type Case = (&'static str, usize, Nanos, &'static [(f64, i64)]);

/// A shard's table with one limit for each of `limits`.
fn shard(shards: usize, limits: &[(f64, i64)]) -> (Credits, Vec<LimitHandle>, Vec<LimitIndex>) {
    let mut registry = Registry::new(10);
    let mut credits = Credits::new(shards);
    let handles: Vec<LimitHandle> = limits
        .iter()
        .enumerate()
        .map(|(number, &(rate, burst))| {
            let id = LimitId::Method {
                api: number.to_string(),
                stage: "prod".into(),
                resource: "/pets".into(),
                method: "GET".into(),
            };
            registry
                .resolve(id, Limit::new(rate, burst).expect("a number"), 0)
                .expect("room")
        })
        .collect();
    handles.iter().for_each(|handle| credits.install(handle));
    let indexes = handles.iter().map(LimitHandle::index).collect();
    (credits, handles, indexes)
}

fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit");
    let cases: [Case; 5] = [
        // Virtual distance of two requests: below the rate, so that all are admitted, or far above it.
        ("admitted, from the cell", 8, 200_000, &[(10_000.0, 1_000)]),
        (
            "admitted, mostly from credit",
            8,
            2_000,
            &[(1_000_000.0, 1_000_000)],
        ),
        ("refused", 8, 1, &[(10.0, 10)]),
        (
            "admitted by two",
            8,
            200_000,
            &[(10_000.0, 1_000), (10_000.0, 5_000)],
        ),
        (
            "refused by the second of two",
            8,
            1,
            &[(1e8, 1_000_000), (10.0, 10)],
        ),
    ];
    for (name, shards, step, limits) in cases {
        let (mut credits, _handles, indexes) = shard(shards, limits);
        let mut now: Nanos = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                now += step;
                black_box(credits.admit(black_box(now), &indexes)).is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, limits);
criterion_main!(benches);
