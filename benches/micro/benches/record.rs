//! What counting and logging costs a request.
#![allow(missing_docs)] // criterion's macros make public functions

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_dataplane::telemetry::log::{Format, StageFacts, preset};
use tidegate_dataplane::telemetry::{IntegrationOutcome, NodeInfo, Options, RequestRecord, Telemetry};

fn record(criterion: &mut Criterion) {
    let info = NodeInfo {
        version: "0".into(),
        driver: "none".into(),
        boot_id: "0".into(),
    };
    let options = Options {
        log_ring_bytes: 64 * 1024 * 1024,
        ..Options::new(info)
    };
    let (telemetry, shards) = Telemetry::start(options).expect("a thread");
    let stage = telemetry.series().stage("a1b2c3d4e5", "pets", "prod");
    let method = telemetry
        .series()
        .method("a1b2c3d4e5", "pets", "prod", "/pets/{petId}", "GET");
    let dir = tempfile::tempdir().expect("a directory");
    let format = Format::compile(preset::CLF, &StageFacts::default()).expect("a format");
    let log = telemetry.log().open(&dir.path().join("access.log"), format);

    let plain = RequestRecord {
        stage: Some(stage.slot()),
        method: None,
        log: None,
        received_unix_ms: 1_583_262_238_512,
        latency_ns: 612_000,
        status: 200,
        response_length: 128,
        error: None,
        integration: Some(IntegrationOutcome {
            latency_ns: 540_000,
            status: Some(200),
            error: b"",
        }),
        source_ip: IpAddr::from([192, 0, 2, 1]),
        request_id: b"11111111-2222-3333-4444-555555555555",
        extended_request_id: b"JKJaXmPLvHcESHA=",
        http_method: b"GET",
        path: b"/prod/pets/7",
        resource_path: b"/pets/{petId}",
        resource_id: b"ab12cd",
        domain_name: b"a1b2c3d4e5.execute-api.localhost",
        user_agent: b"curl/8.0",
    };
    let cases = [
        ("stage", plain),
        (
            "stage and method",
            RequestRecord {
                method: Some(method.slot()),
                ..plain
            },
        ),
        (
            "stage, method, access log",
            RequestRecord {
                method: Some(method.slot()),
                log: Some(log.target()),
                ..plain
            },
        ),
    ];
    let mut group = criterion.benchmark_group("record");
    for (name, record) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    // The thread that writes must not be measured with it, nor must drops for want of room.
                    let batch = left.min(2_000);
                    let begin = Instant::now();
                    for _ in 0..batch {
                        shards[0].record(black_box(&record));
                    }
                    spent += begin.elapsed();
                    telemetry.log().flush();
                    left -= batch;
                }
                spent
            });
        });
    }
    group.finish();
    println!("{:?}", telemetry.log().stats());
}

criterion_group!(benches, record);
criterion_main!(benches);
