//! Formats numbers for people.

/// `1,234,567`.
pub(crate) fn thousands(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 room`, `1,234 rooms`.
pub(crate) fn count(number: impl Into<i128>, what: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number))
}

/// `8.4 MB`, `843 MB`, `1.2 GB`; decimal units.
pub(crate) fn size(bytes: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes.max(0) as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        // Use the larger unit already if the value would be rounded to 1000.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit != "B" && value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `0.4/s`, `1,234/s`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second < 9.95 {
        format!("{:.1}/s", per_second.max(0.0))
    } else {
        format!("{}/s", thousands(whole(per_second)))
    }
}

/// Rounds to a whole number. A negative number or NaN becomes 0, one that is too large the maximum.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates and the value is clamped before"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value.round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(-1000), "-1,000");
        assert_eq!([count(0, "room"), count(1, "room")], ["0 rooms", "1 room"]);
        assert_eq!(count(1200, "room"), "1,200 rooms");
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (8_420_000, "8.4 MB"),
            (9_960_000, "10 MB"),
            (999_600_000, "1.0 GB"),
            (i64::MAX, "9223 PB"),
            (-1, "0 B"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(
            [rate(0.04), rate(9.94), rate(9.96), rate(12_345.6)],
            ["0.0/s", "9.9/s", "10/s", "12,346/s"]
        );
    }

    #[test]
    fn rounds_without_surprises() {
        assert_eq!([f64::NAN, -1.0, f64::INFINITY, 2.5].map(whole), [0, 0, u64::MAX, 3]);
    }
}
