//! What a request costs in heap allocations. One test in a process of its own, as it counts with the allocator.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use support::{drivers, pair};
use tidegate_rt::{self as rt, Buffer, RuntimeOptions, Stream, Timer};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Architecture, invariants: after warm-up a request costs the streams, timers and buffers no allocation at all, however
/// large its body.
#[test]
fn a_request_allocates_nothing() {
    for kind in drivers() {
        for body in [0, 100, 50_000] {
            rt::run(RuntimeOptions::new(kind), async move {
                let (mut client, mut server) = pair().await;
                let mut timer = Timer::new();
                for _ in 0..20 {
                    exchange(&mut client, &mut server, &mut timer, body).await;
                }
                let before = COUNT.get();
                for _ in 0..100 {
                    exchange(&mut client, &mut server, &mut timer, body).await;
                }
                assert_eq!(COUNT.get() - before, 0, "body of {body} bytes on {kind}");
            })
            .unwrap();
        }
    }
}

/// A head and a body in two blocks one way, and as many reads as it takes the other.
async fn exchange(client: &mut Stream, server: &mut Stream, timer: &mut Timer, body: usize) {
    let mut head = Buffer::with_capacity(2000);
    head.extend_from_slice(&[b'h'; 1500]);
    client.queue(head.freeze());
    let mut total = 1500;
    for part in (0..body).step_by(16_000) {
        let size = (body - part).min(16_000);
        let mut block = Buffer::with_capacity(size);
        block.spare_mut(size).fill(b'b');
        block.commit(size);
        client.queue(block.freeze());
        total += size;
    }
    client.flush().await.unwrap();
    timer.set_after(Duration::from_secs(30));
    let mut received = 0;
    while received < total {
        received += rt::with_deadline(timer, server.read())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .len();
    }
    assert_eq!(received, total);
}
