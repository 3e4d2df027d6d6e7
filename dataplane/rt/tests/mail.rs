//! Mail from other threads on each driver (decision D6).

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use support::{on_each_driver, soon};
use tidegate_rt::mail::{self, Full};
use tidegate_rt::{self as rt};

/// D6: messages of several threads arrive, each thread's in order, whether the shard sleeps or not.
#[test]
fn mail_under_load() {
    const EACH: u32 = 20_000;
    on_each_driver(|_| async {
        let (sender, receiver) = mail::channel(64).unwrap();
        let threads: Vec<_> = (0..3u32)
            .map(|thread| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        let mut message = (thread, number);
                        while let Err(Full(back)) = sender.send(message) {
                            message = back;
                            thread::yield_now();
                        }
                        // Now and then let the shard fall asleep.
                        if number % 1000 == 999 {
                            thread::sleep(std::time::Duration::from_micros(200));
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut inbox = receiver.attach().unwrap();
        let mut next = HashMap::new();
        while let Some((thread, number)) = soon(inbox.recv()).await {
            let expected = next.entry(thread).or_insert(0);
            assert_eq!(number, *expected, "thread {thread}");
            *expected += 1;
        }
        assert_eq!(next, (0..3).map(|thread| (thread, EACH)).collect());
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Full is an error that gives the message back; nobody waits.
#[test]
fn a_full_ring_refuses() {
    on_each_driver(|_| async {
        let (sender, receiver) = mail::channel(2).unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(sender.send(3).unwrap_err().0, 3);
        let mut inbox = receiver.attach().unwrap();
        assert_eq!(soon(inbox.recv()).await, Some(1));
        sender.send(4).unwrap();
        assert_eq!(soon(inbox.recv()).await, Some(2));
        assert_eq!(inbox.try_recv(), Some(4));
        assert_eq!(inbox.try_recv(), None);
    });
}

/// What was sent before the last sender went is received; what nobody will receive is freed.
#[test]
fn either_end_may_go_first() {
    on_each_driver(|_| async {
        let (sender, receiver) = mail::channel(4).unwrap();
        sender.send("last words").unwrap();
        drop(sender);
        let mut inbox = receiver.attach().unwrap();
        assert_eq!(soon(inbox.recv()).await, Some("last words"));
        assert_eq!(soon(inbox.recv()).await, None);

        let (sender, receiver) = mail::channel(4).unwrap();
        let message = Arc::new(());
        sender.send(message.clone()).unwrap();
        let inbox = receiver.attach().unwrap();
        drop(inbox);
        assert!(sender.is_closed());
        assert_eq!(Arc::strong_count(&message), 1);
        sender.send(message.clone()).unwrap_err();
    });
}

/// A message wakes a shard that has nothing else to do, also when the wait for mail was given up before.
#[test]
fn mail_wakes_a_sleeping_shard() {
    on_each_driver(|_| async {
        let (sender, receiver) = mail::channel(4).unwrap();
        let mut inbox = receiver.attach().unwrap();
        for round in 0..20 {
            let mut timer = rt::Timer::new();
            timer.set(rt::now());
            assert!(rt::with_deadline(&mut timer, inbox.recv()).await.is_err());
            let sender = sender.clone();
            let thread = thread::spawn(move || sender.send(round).unwrap());
            assert_eq!(soon(inbox.recv()).await, Some(round));
            thread.join().unwrap();
        }
    });
}
