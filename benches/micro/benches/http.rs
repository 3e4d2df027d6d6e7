//! Reading and writing heads: what every request pays.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_dataplane::http::{HeadLimits, HeadWriter, Known, RequestHead, ResponseHead, Scanner};
use tidegate_plan::limits::Limits;
use tidegate_rt::{Buffer, Chunk};

const SMALL: &[u8] = b"GET /prod/pets/42 HTTP/1.1\r\nHost: abcdefghij.execute-api.localhost\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /prod/pets?type=dog&page=2 HTTP/1.1\r\n\
Host: abcdefghij.execute-api.localhost:8080\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: none\r\n\
Cache-Control: max-age=0\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n";

fn read(bytes: &Chunk, limits: &HeadLimits) -> RequestHead {
    let end = Scanner::new().advance(bytes, limits, true).unwrap().unwrap();
    RequestHead::parse(bytes.slice(..end), limits).unwrap()
}

fn heads(c: &mut Criterion) {
    let limits = HeadLimits::for_requests(&Limits::default());
    let mut group = c.benchmark_group("head");
    for (name, bytes) in [("small", SMALL), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let bytes = Chunk::copy_from_slice(bytes);
        group.bench_function(format!("read request/{name}"), |b| {
            b.iter(|| read(black_box(&bytes), &limits))
        });
        let head = read(&bytes, &limits);
        group.bench_function(format!("write request/{name}"), |b| {
            b.iter(|| {
                let mut out = Buffer::with_capacity(4096);
                let mut writer = HeadWriter::request(&mut out, head.method(), [head.path()]);
                writer.field(b"Host", b"backend.internal:8080");
                writer.kept(head.fields(), |field| {
                    field
                        .known
                        .is_none_or(|known| known != Known::Host && !known.is_hop_by_hop())
                });
                writer.field(b"X-Forwarded-For", b"203.0.113.7");
                writer.end();
                out
            });
        });
    }
    let limits = HeadLimits::for_responses(&Limits::default());
    let bytes = Chunk::copy_from_slice(RESPONSE);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("read response", |b| {
        b.iter(|| {
            let end = Scanner::new()
                .advance(black_box(&bytes), &limits, false)
                .unwrap()
                .unwrap();
            ResponseHead::parse(bytes.slice(..end), false, false, &limits).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
