//! Bringing a path into canonical form and finding its resource among 10, 1,000 and 100,000.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_plan::path;
use tidegate_plan::trie::{Builder, Captures, Trie};

/// Five resources a service: `/s7`, `/s7/items`, `/s7/items/{id}`, its notes, and `/s7/files/{proxy+}`.
fn trie(routes: usize) -> Trie {
    let mut builder = Builder::new(routes);
    for at in 0..routes / 5 {
        for tail in [
            "",
            "/items",
            "/items/{id}",
            "/items/{id}/notes",
            "/files/{proxy+}",
        ] {
            builder.insert(&format!("/s{at}{tail}")).unwrap();
        }
    }
    builder.finish()
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [10, 1_000, 100_000] {
        let trie = trie(count);
        // A different service each time, so that the table does not sit in the nearest cache by repetition.
        let texts: Vec<String> = (0..count / 5)
            .map(|at| format!("/s{at}/items/{at}/notes"))
            .collect();
        let paths: Vec<_> = texts
            .iter()
            .map(|text| path::normalize(text.as_bytes()).unwrap())
            .collect();
        let mut captures = Captures::new();
        let mut at = 0;
        group.bench_function(format!("find among {count}"), |b| {
            b.iter(|| {
                at = (at + 7919) % paths.len();
                trie.find(black_box(paths[at].view()), &mut captures).unwrap()
            });
        });
        println!(
            "route/{count}: {} bytes of trie a route",
            trie.heap_bytes() / count
        );
    }
    for (name, raw) in [
        ("canonical", "/prod/pets/42"),
        ("encoded", "/prod/p%65ts/caf%c3%a9"),
    ] {
        group.bench_function(format!("normalise {name}"), |b| {
            b.iter(|| path::normalize(black_box(raw.as_bytes())).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
