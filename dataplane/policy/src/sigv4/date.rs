//! The moment of a signature.

use std::fmt;

/// A moment in the form `20150830T123600Z`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AmzDate([u8; 16]);

impl AmzDate {
    /// A moment in seconds since 1970. Years are held between 1970 and 9999.
    pub fn from_unix(seconds: u64) -> Self {
        let seconds = seconds.min(LAST);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = [0; 16];
        let mut at = 0;
        for (value, digits) in [(year, 4), (month, 2), (day, 2)] {
            put(&mut text[at..at + digits], value);
            at += digits;
        }
        text[8] = b'T';
        put(&mut text[9..11], rest / 3_600);
        put(&mut text[11..13], rest / 60 % 60);
        put(&mut text[13..15], rest % 60);
        text[15] = b'Z';
        Self(text)
    }

    /// Takes a moment in its form; `None`: it is not in that form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = text.as_bytes().try_into().ok()?;
        let digits = |range: &[u8]| range.iter().all(u8::is_ascii_digit);
        (digits(&bytes[..8]) && bytes[8] == b'T' && digits(&bytes[9..15]) && bytes[15] == b'Z')
            .then_some(Self(bytes))
    }

    /// In its form.
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The day, as `20150830`.
    pub fn day(&self) -> &str {
        self.as_str().get(..8).unwrap_or_default()
    }
}

impl fmt::Debug for AmzDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn put(at: &mut [u8], mut value: u64) {
    for digit in at.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The date of a number of days since 1970, in the Gregorian calendar. Years begin in March here, so that the leap day
/// is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let era = days / DAYS_OF_400_YEARS;
    let of_era = days % DAYS_OF_400_YEARS;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// From 1 March of the year 0.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;
/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_799, "20000229T235959Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_735_689_599, "20241231T235959Z"),
            (u64::MAX, "99991231T235959Z"),
        ] {
            assert_eq!(AmzDate::from_unix(seconds).as_str(), text);
            assert_eq!(AmzDate::parse(text), Some(AmzDate::from_unix(seconds)));
        }
        assert_eq!(AmzDate::from_unix(1_440_938_160).day(), "20150830");
        for wrong in [
            "",
            "20150830",
            "20150830T123600",
            "20150830 123600Z",
            "2015083xT123600Z",
        ] {
            assert_eq!(AmzDate::parse(wrong), None, "{wrong}");
        }
    }
}
