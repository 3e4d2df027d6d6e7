//! Points in time as entities carry them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, to the second; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Now, by the system's clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_second())
    }

    /// From seconds since 1970-01-01T00:00:00Z; `None` outside the years that RFC 3339 can write.
    pub fn from_unix(seconds: i64) -> Option<Self> {
        jiff::Timestamp::from_second(seconds)
            .ok()
            .map(|t| Self(t.as_second()))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn unix(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Self(time.as_second()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The JSON form is RFC 3339 and reads back as the same second.
    #[test]
    fn json_form_is_rfc_3339() {
        let time = Timestamp::from_unix(1_511_379_050).expect("in range");
        let text = serde_json::to_string(&time).expect("serializes");
        assert_eq!(text, "\"2017-11-22T19:30:50Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("parses"), time);
        assert_eq!(Timestamp::from_unix(i64::MAX), None);
    }
}
