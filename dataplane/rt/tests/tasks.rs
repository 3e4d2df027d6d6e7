//! Tasks, timers and the end of a run on each driver.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use support::{drivers, listener, on_each_driver, pair, soon};
use tidegate_rt::{self as rt, Chunk, Elapsed, JoinError, RuntimeOptions, Timer};

/// D7: a panic ends one task, is counted here and for other threads, and frees what the task held.
#[test]
fn a_panic_ends_only_its_task() {
    for kind in drivers() {
        let count = Arc::new(AtomicU64::new(0));
        let mut options = RuntimeOptions::new(kind);
        options.panics = Some(count.clone());
        std::thread::spawn(move || {
            rt::run(options, async {
                let (mut client, mut server) = pair().await;
                let doomed = rt::spawn(async move {
                    server.read().await.unwrap();
                    panic!("meant to happen");
                });
                let other = rt::spawn(async { 7 });
                client.queue(Chunk::from("die"));
                client.flush().await.unwrap();
                assert_eq!(soon(doomed).await, Err(JoinError::Panicked));
                assert_eq!(soon(other).await, Ok(7));
                // The connection that the task owned is gone.
                assert!(matches!(soon(client.read()).await, Ok(None) | Err(_)));
                assert_eq!(rt::panics(), 1);
            })
            .unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}

/// A panic of the main future comes out of `run`, after draining.
#[test]
fn a_panic_in_main_comes_out_of_run() {
    for kind in drivers() {
        let result = std::panic::catch_unwind(|| {
            rt::run(RuntimeOptions::new(kind), async {
                let (mut client, _server) = pair().await;
                client.arm_read();
                panic!("meant to happen");
            })
        });
        assert!(result.is_err());
        assert_eq!(rt::in_flight(), 0);
    }
}

/// D3: the end of a run stops every task and waits until the kernel has let go of everything.
#[test]
fn the_end_of_a_run_drains() {
    struct OnDrop(Rc<Cell<u32>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    for kind in drivers() {
        let gauge = Arc::new(AtomicUsize::new(0));
        let mut options = RuntimeOptions::new(kind);
        options.in_flight = Some(gauge.clone());
        let seen = gauge.clone();
        std::thread::spawn(move || {
            let dropped = Rc::new(Cell::new(0));
            let count = dropped.clone();
            rt::run(options, async move {
                let accepting = listener();
                rt::spawn(async move { accepting.accept().await.map(drop) });
                for _ in 0..20 {
                    let (mut a, mut b) = pair().await;
                    let (guard, other) = (OnDrop(count.clone()), OnDrop(count.clone()));
                    rt::spawn(async move {
                        let _guard = guard;
                        a.read().await.map(drop)
                    });
                    rt::spawn(async move {
                        let _guard = other;
                        b.read().await.map(drop)
                    });
                }
                let sleeping = OnDrop(count.clone());
                rt::spawn(async move {
                    let _guard = sleeping;
                    rt::sleep(Duration::from_secs(3600)).await;
                });
                rt::turn::end().await;
                assert!(seen.load(Ordering::Relaxed) >= 40);
            })
            .unwrap();
            assert_eq!(dropped.get(), 41);
            assert_eq!(
                (rt::in_flight(), rt::pool::stats().live),
                (0, [0; rt::pool::CLASSES])
            );
        })
        .join()
        .unwrap();
        assert_eq!(gauge.load(Ordering::Relaxed), 0);
    }
}

/// A timer may be moved on, moved back, cleared and used again; it never fires early.
#[test]
fn timers_can_be_moved() {
    on_each_driver(|_| async {
        let mut timer = Timer::new();
        let begin = rt::now();
        timer.set(begin + Duration::from_millis(20));
        assert_eq!(
            rt::with_deadline(&mut timer, std::future::pending::<()>()).await,
            Err(Elapsed)
        );
        assert!(rt::now() >= begin + Duration::from_millis(20));

        // Armed for an hour, then moved closer.
        timer.set_after(Duration::from_secs(3600));
        assert_eq!(rt::with_deadline(&mut timer, rt::turn::end()).await, Ok(()));
        let begin = rt::now();
        timer.set(begin + Duration::from_millis(10));
        assert_eq!(
            soon(rt::with_deadline(&mut timer, std::future::pending::<()>())).await,
            Err(Elapsed)
        );
        assert!(rt::now() >= begin + Duration::from_millis(10));

        // Armed for 10 ms, then moved on: the old moment passes without effect.
        let begin = rt::now();
        timer.set(begin + Duration::from_millis(10));
        assert_eq!(rt::with_deadline(&mut timer, rt::turn::end()).await, Ok(()));
        timer.set(begin + Duration::from_millis(40));
        assert_eq!(
            soon(rt::with_deadline(&mut timer, std::future::pending::<()>())).await,
            Err(Elapsed)
        );
        assert!(rt::now() >= begin + Duration::from_millis(40));

        // Cleared while armed.
        timer.set_after(Duration::from_millis(5));
        assert_eq!(rt::with_deadline(&mut timer, rt::turn::end()).await, Ok(()));
        timer.clear();
        assert_eq!(
            soon(rt::with_deadline(
                &mut timer,
                rt::sleep(Duration::from_millis(20))
            ))
            .await,
            Ok(())
        );
    });
}

/// A deadline that has passed still lets through what is ready.
#[test]
fn what_is_ready_counts_before_the_deadline() {
    on_each_driver(|_| async {
        let mut timer = Timer::new();
        timer.set(rt::now());
        assert_eq!(rt::with_deadline(&mut timer, async { 5 }).await, Ok(5));
    });
}

/// The clock stands still within one poll of a task and moves between them.
#[test]
fn the_clock_is_read_once_a_poll() {
    on_each_driver(|_| async {
        let first = rt::now();
        let spin = std::time::Instant::now();
        while spin.elapsed() < Duration::from_millis(2) {}
        assert_eq!(rt::now(), first);
        rt::turn::end().await;
        assert!(rt::now() >= first + Duration::from_millis(2));
    });
}
