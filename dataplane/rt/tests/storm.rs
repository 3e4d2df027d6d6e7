//! The cancellation storm of decision D3: operations given up at random moments, and every byte accounted for.
//!
//! Freed blocks are poisoned and held in quarantine meanwhile, so that a kernel that still writes to one is found.
//! Another seed is run with `STORM_SEED=7 cargo test -p tidegate-rt --test storm`.

mod support;

use std::io;
use std::time::Duration;

use socket2::SockRef;
use support::{Random, on_each_driver, pair, soon};
use tidegate_rt::{self as rt, Chunk, Stream, Timer};

/// Bytes sent over a connection; over one with a small send buffer, which is slow, a quarter.
const BYTES: u64 = 2_000_000;

/// What stands at a place of the byte stream.
fn byte_at(place: u64) -> u8 {
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn seed() -> u64 {
    std::env::var("STORM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1)
}

/// Ends an await early: after a few polls, at the end of a turn, or by time.
async fn impatient<T>(random: &mut Random, timer: &mut Timer, future: impl Future<Output = T>) -> Option<T> {
    match random.below(4) {
        0 => Some(future.await),
        1 => once(future).await,
        2 => {
            let mut future = std::pin::pin!(future);
            let mut end = std::pin::pin!(rt::turn::end());
            std::future::poll_fn(|cx| {
                if let std::task::Poll::Ready(output) = future.as_mut().poll(cx) {
                    return std::task::Poll::Ready(Some(output));
                }
                end.as_mut().poll(cx).map(|()| None)
            })
            .await
        }
        _ => {
            timer.set_after(Duration::from_micros(random.below(2500)));
            rt::with_deadline(timer, future).await.ok()
        }
    }
}

/// Polls once.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

async fn send(mut stream: Stream, total: u64, mut random: Random) -> io::Result<u32> {
    let mut timer = Timer::new();
    let (mut place, mut given_up) = (0, 0);
    while place < total || stream.queued() > 0 {
        // A few chunks of all sizes, of pool blocks and of others.
        for _ in 0..random.below(6) {
            let size = match random.below(3) {
                0 => random.below(50),
                1 => random.below(900),
                _ => random.below(7_000),
            };
            let bytes: Vec<u8> = (place..total.min(place + size)).map(byte_at).collect();
            place += bytes.len() as u64;
            stream.queue(match random.below(2) {
                0 => Chunk::copy_from_slice(&bytes),
                _ => Chunk::from(bytes),
            });
        }
        // Leaves the reader something to wait for.
        for _ in 0..random.below(5) {
            rt::turn::end().await;
        }
        match impatient(&mut random, &mut timer, stream.flush()).await {
            Some(result) => result?,
            None => given_up += 1,
        }
    }
    stream.shutdown_write()?;
    Ok(given_up)
}

async fn receive(mut stream: Stream, total: u64, mut random: Random) -> io::Result<u32> {
    let mut timer = Timer::new();
    let mut held: Vec<(u64, Chunk)> = Vec::new();
    let (mut place, mut given_up) = (0, 0);
    loop {
        if random.below(4) == 0 {
            stream.arm_read();
        }
        if random.below(20) == 0 {
            stream.set_read_size(1 + random.below(70_000) as usize);
        }
        let Some(result) = impatient(&mut random, &mut timer, stream.read()).await else {
            given_up += 1;
            continue;
        };
        let Some(mut chunk) = result? else { break };
        // Sometimes hand a part back, sometimes keep chunks while reads go on behind them in the same block.
        if random.below(4) == 0 {
            let rest = chunk.split_to(random.below(chunk.len() as u64 + 1) as usize);
            stream.unread(std::mem::replace(&mut chunk, rest));
        }
        let begin = place;
        place += chunk.len() as u64;
        held.push((begin, chunk));
        while held.len() as u64 > random.below(12) {
            let (begin, chunk) = held.swap_remove(random.below(held.len() as u64) as usize);
            for (offset, byte) in chunk.iter().enumerate() {
                assert_eq!(
                    *byte,
                    byte_at(begin + offset as u64),
                    "byte {} is wrong",
                    begin + offset as u64
                );
            }
        }
    }
    assert_eq!(place, total);
    Ok(given_up)
}

/// D3: no byte is lost, doubled or torn by operations that are given up, and no freed memory is written to.
#[test]
fn cancellation_storm() {
    on_each_driver(|kind| async move {
        let mut random = Random(seed());
        let mut tasks = Vec::new();
        for connection in 0..10 {
            let (left, right) = pair().await;
            let small = connection % 2 == 0;
            let total = if small { BYTES / 4 } else { BYTES };
            for stream in [&left, &right] {
                // Every write is partial then.
                if small {
                    SockRef::from(stream).set_send_buffer_size(4096).unwrap();
                }
            }
            tasks.push(rt::spawn(send(left, total, Random(random.below(u64::MAX)))));
            tasks.push(rt::spawn(receive(right, total, Random(random.below(u64::MAX)))));
        }
        let mut given_up = 0;
        for task in tasks {
            given_up += soon(task).await.unwrap().unwrap();
        }
        assert!(
            given_up > 500,
            "only {given_up} operations were given up on {kind}"
        );
    });
}

/// D3: connections dropped at random moments, with reads and writes in flight, leave nothing behind.
#[test]
fn drop_storm() {
    on_each_driver(|_| async {
        let mut random = Random(seed());
        for _ in 0..300 {
            let (mut left, mut right) = pair().await;
            let mut timer = Timer::new();
            for _ in 0..random.below(4) {
                left.queue(Chunk::from(vec![1; random.below(300_000) as usize]));
                right.queue(Chunk::copy_from_slice(&[2; 600]));
                let _ = impatient(&mut random, &mut timer, left.flush()).await;
                let _ = once(right.flush()).await;
                let _ = once(left.read()).await;
                let _ = once(right.read()).await;
            }
            match random.below(3) {
                0 => left.reset(),
                1 => drop(left),
                _ => drop(right),
            }
        }
    });
}
