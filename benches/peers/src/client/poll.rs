//! Many sockets and one clock, waited for together.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Marks the clock among the events.
const CLOCK: u64 = u64::MAX;

pub(crate) struct Poll {
    epoll: OwnedFd,
    clock: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> Result<Self> {
        let poll = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clock: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            events: Vec::with_capacity(1024),
        };
        let data = epoll::EventData::new_u64(CLOCK);
        epoll::add(&poll.epoll, &poll.clock, data, epoll::EventFlags::IN)?;
        Ok(poll)
    }

    /// Watches a socket for bytes; `number` comes back with them.
    pub(crate) fn watch(&self, socket: &TcpStream, number: usize) -> Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?)
    }

    /// Waits for bytes or for an instant, whichever is first; the numbers of the sockets that have something.
    pub(crate) fn wait(&mut self, until: Instant) -> Result<impl Iterator<Item = usize> + '_> {
        // Zero would stop the clock.
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).context("a wait")?,
        };
        timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &time)?;
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            None,
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Setting the clock anew takes what it has told.
        Ok(self
            .events
            .iter()
            .map(|event| event.data.u64())
            .filter(|number| *number != CLOCK)
            .map(|number| number as usize))
    }
}
