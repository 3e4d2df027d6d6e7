//! Wall-clock time for headers and logs, from the monotonic time that the shard has read anyway.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_rt::Instant;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type HttpDate = [u8; 29];

/// A shard's wall clock: the system's is read once a second.
#[derive(Debug)]
pub struct Clock {
    /// The monotonic time of the last reading, and the wall time since the epoch that it showed.
    read_at: Cell<Instant>,
    epoch: Cell<Duration>,
    date_of: Cell<u64>,
    date: Cell<HttpDate>,
}

impl Clock {
    /// A clock that was read at `now`.
    pub fn new(now: Instant) -> Self {
        let clock = Self {
            read_at: Cell::new(now),
            epoch: Cell::new(Duration::ZERO),
            date_of: Cell::new(u64::MAX),
            date: Cell::new([0; 29]),
        };
        clock.read(now);
        clock
    }

    fn read(&self, now: Instant) {
        self.read_at.set(now);
        self.epoch
            .set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    }

    /// Time since the epoch at `now`.
    pub fn epoch(&self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.read_at.get());
        if passed >= Duration::from_secs(1) {
            self.read(now);
            return self.epoch.get();
        }
        self.epoch.get() + passed
    }

    /// The `Date` header's value at `now` (RFC 9110 section 5.6.7).
    pub fn date(&self, now: Instant) -> HttpDate {
        let seconds = self.epoch(now).as_secs();
        if self.date_of.get() != seconds {
            self.date_of.set(seconds);
            self.date.set(http_date(seconds));
        }
        self.date.get()
    }
}

/// The instant `seconds` after the epoch, in the form of RFC 9110.
pub fn http_date(seconds: u64) -> HttpDate {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    date[0..3].copy_from_slice(DAYS[(days % 7) as usize]);
    digits(day, &mut date[5..7]);
    date[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    digits(year, &mut date[12..16]);
    digits(rest / 3600, &mut date[17..19]);
    digits(rest / 60 % 60, &mut date[20..22]);
    digits(rest % 60, &mut date[23..25]);
    date
}

/// Year, month and day of a day counted from the epoch, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn digits(mut value: u64, out: &mut [u8]) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(&http_date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&http_date(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&http_date(1_798_761_599), b"Thu, 31 Dec 2026 23:59:59 GMT");
    }

    #[test]
    fn the_date_follows_the_clock() {
        let now = Instant::now();
        let clock = Clock::new(now);
        let first = clock.epoch(now);
        assert_eq!(
            clock.epoch(now + Duration::from_millis(10)),
            first + Duration::from_millis(10)
        );
        assert_eq!(clock.date(now).len(), 29);
    }
}
