//! Durations as people write them: `500ms`, `60s`, `10m`, `1h`, `7d`.
//!
//! No crate fits: `humantime` also accepts months and sums, `jiff`'s exact durations have no days, and both print
//! another notation than the documented one.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units, the longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A whole number of milliseconds, parsed and printed as `10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(u64);

impl Span {
    pub(super) const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    pub(super) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*factor).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor));
        let (unit, factor) = exact.filter(|_| self.0 != 0).unwrap_or(&("s", 1000));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SpanVisitor)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a duration such as "500ms", "60s", "10m", "1h" or "7d""#)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        Span::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_the_documented_notation() {
        for text in ["500ms", "60s", "10m", "1h", "7d", "90s", "0s"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Some(span), "{text}");
        }
        assert_eq!(Span::from_secs(60).to_string(), "1m");
        assert_eq!(Span::from_secs(604_800).to_string(), "7d");
        assert_eq!(Span::from_secs(90).to_string(), "90s");
        assert_eq!(Span(0).to_string(), "0s");
        assert_eq!(Span::parse("10m").unwrap().duration(), Duration::from_mins(10));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "60",
            "s",
            "1.5h",
            "-1s",
            "1 h",
            "1w",
            "1h30m",
            "60S",
            "99999999999999d",
            "184467440737095516160s",
        ] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
