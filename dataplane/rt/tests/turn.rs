//! The end of a turn on each driver (decision D5).

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use support::{on_each_driver, pair, soon};
use tidegate_rt::{self as rt, Chunk, turn};

type Gate = RefCell<Vec<Waker>>;

/// Waits until the gate is opened.
async fn wait_at(gate: &Gate) {
    let mut waited = false;
    poll_fn(|cx| {
        if !std::mem::replace(&mut waited, true) {
            gate.borrow_mut().push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// Opens the gate once `count` tasks wait at it: all of them are ready when the next turn begins.
async fn open(gate: &Rc<Gate>, count: usize) {
    while gate.borrow().len() < count {
        turn::end().await;
    }
    let gate = gate.clone();
    turn::defer(move || gate.take().into_iter().for_each(Waker::wake));
}

/// D5: what is deferred runs after every other task that was ready when the turn began, whatever their order.
#[test]
fn deferred_calls_run_after_the_ready_tasks() {
    on_each_driver(|_| async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let gate = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..20)
            .map(|task| {
                let (log, gate) = (log.clone(), gate.clone());
                rt::spawn(async move {
                    wait_at(&gate).await;
                    log.borrow_mut().push(format!("task {task}"));
                    if task % 5 == 0 {
                        let log = log.clone();
                        turn::defer(move || log.borrow_mut().push(format!("deferred by {task}")));
                    }
                })
            })
            .collect();
        open(&gate, 20).await;
        for task in tasks {
            soon(task).await.unwrap();
        }
        turn::end().await; // this task may have gone on in the same turn
        let expected: Vec<String> = (0..20)
            .map(|task| format!("task {task}"))
            .chain((0..20).step_by(5).map(|task| format!("deferred by {task}")))
            .collect();
        assert_eq!(*log.borrow(), expected);
    });
}

/// D5: a task that awaits the end of the turn goes on after all that were ready with it.
#[test]
fn the_end_comes_after_the_ready_tasks() {
    on_each_driver(|_| async {
        let (count, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let gate = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..10)
            .map(|task| {
                let (count, seen, gate) = (count.clone(), seen.clone(), gate.clone());
                rt::spawn(async move {
                    wait_at(&gate).await;
                    count.set(count.get() + 1);
                    if task == 0 {
                        turn::end().await;
                        seen.set(count.get());
                    }
                })
            })
            .collect();
        open(&gate, 10).await;
        for task in tasks {
            soon(task).await.unwrap();
        }
        assert_eq!(seen.get(), 10);
    });
}

/// D5: the spike for write coalescing. Tasks of one turn queue for one connection; its writer awaits the end of the turn
/// and sends all of it in one write.
#[test]
fn one_flush_for_many_writers() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        let (queue, gate) = (
            Rc::new(RefCell::new(Vec::new())),
            Rc::new(RefCell::new(Vec::new())),
        );
        let (at, from) = (gate.clone(), queue.clone());
        let writer = rt::spawn(async move {
            wait_at(&at).await;
            turn::end().await;
            for chunk in from.take() {
                server.queue(chunk);
            }
            let together = server.queued();
            server.flush().await.unwrap();
            together
        });
        for writer in 0..10u8 {
            let (queue, gate) = (queue.clone(), gate.clone());
            rt::spawn(async move {
                wait_at(&gate).await;
                queue.borrow_mut().push(Chunk::copy_from_slice(&[writer; 100]));
            });
        }
        open(&gate, 11).await;
        let received = soon(support::read_exactly(&mut client, 1000)).await.unwrap();
        let expected: Vec<u8> = (0..10u8).flat_map(|writer| [writer; 100]).collect();
        assert_eq!((received, soon(writer).await), (expected, Ok(1000)));
    });
}

/// D16: between two breaths everybody hears from the kernel what it has for them.
#[test]
fn a_breath_lets_others_hear_the_kernel() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        let heard = Rc::new(Cell::new(0));
        let count = heard.clone();
        let reader = rt::spawn(async move {
            while let Ok(Some(_)) = server.read().await {
                count.set(count.get() + 1);
            }
        });
        turn::breath().await; // the reader waits
        for round in 1..=50 {
            client.queue(Chunk::from("ping"));
            soon(client.flush()).await.unwrap();
            let mut breaths = 0;
            while heard.get() < round {
                turn::breath().await;
                breaths += 1;
                assert!(breaths <= 20, "round {round} is not heard");
            }
        }
        drop(client);
        soon(reader).await.unwrap();
    });
}

/// Tasks that wait for breaths and tasks that wait for ends of turns do not hold each other up.
#[test]
fn breaths_and_ends_of_turns_go_together() {
    on_each_driver(|_| async {
        let tasks: Vec<_> = (0..6)
            .map(|task| {
                rt::spawn(async move {
                    for _ in 0..200 {
                        match task % 2 {
                            0 => turn::breath().await,
                            _ => turn::end().await,
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            soon(task).await.unwrap();
        }
    });
}

/// The runtime parks only when no task is ready; tasks that yield for ever must not keep it from hearing the kernel.
#[test]
fn yielding_tasks_do_not_starve_the_kernel() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        let stop = Rc::new(Cell::new(false));
        for _ in 0..3 {
            let stop = stop.clone();
            rt::spawn(async move {
                while !stop.get() {
                    turn::end().await;
                }
            });
        }
        for _ in 0..5 {
            client.queue(Chunk::from("ping"));
            soon(client.flush()).await.unwrap();
            assert_eq!(soon(server.read()).await.unwrap().unwrap(), b"ping");
        }
        stop.set(true);
    });
}

/// D7: a panic in a deferred call is counted and hurts nobody.
#[test]
fn a_panic_in_a_deferred_call_is_counted() {
    on_each_driver(|_| async {
        let ran = Rc::new(Cell::new(false));
        turn::defer(|| panic!("meant to happen"));
        let flag = ran.clone();
        turn::defer(move || flag.set(true));
        turn::end().await;
        assert_eq!((rt::panics(), ran.get()), (1, true));
    });
}
