//! Formats times and durations for people.

use super::number::{thousands, whole};

/// The number of days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

/// `12 s ago`, `3 min ago`, `5 h ago`, `12 days ago`.
pub(crate) fn ago(seconds: f64) -> String {
    match whole(seconds.floor()) {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", thousands(seconds / 86_400)),
    }
}

/// `45s`, `14m`, `3h`, `12d`: rounded up to a whole unit, because an estimate is not more exact than that.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6000 => format!("{}m", seconds.div_ceil(60)),
        6000..172_800 => format!("{}h", seconds.div_ceil(3600)),
        172_800..8_640_000 => format!("{}d", seconds.div_ceil(86_400)),
        _ => ">99d".to_owned(),
    }
}

/// The day, in UTC, of a time in milliseconds. A server may send any number.
pub(crate) fn day(milliseconds: i64) -> String {
    let day = milliseconds.div_euclid(86_400_000);
    let (year, ..) = civil(day);
    if (1970..=9999).contains(&year) { date(day) } else { "odd date".to_owned() }
}

/// A day of any year, by its number since 1970-01-01, as PostgreSQL writes it.
pub(crate) fn date(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day from a number of days since 1970-01-01. Counts years from March, in eras of 400 years.
const fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_TO_1970;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        for (seconds, shown) in [
            (-3.0, "0 s ago"),
            (59.9, "59 s ago"),
            (60.0, "1 min ago"),
            (3600.0, "1 h ago"),
            (172_800.0, "2 days ago"),
            (1e12, "11,574,074 days ago"),
            (f64::NAN, "0 s ago"),
        ] {
            assert_eq!(ago(seconds), shown);
        }
        let shown = [0, 99, 100, 5999, 6000, 172_800, u64::MAX].map(duration);
        assert_eq!(shown, ["0s", "99s", "2m", "100m", "2h", "2d", ">99d"]);
    }

    #[test]
    fn dates_are_right_and_absurd_ones_do_not_panic() {
        for (milliseconds, shown) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_614_816_000_000, "2021-03-04"),
            (4_107_542_399_999, "2100-02-28"),
            (4_107_542_400_000, "2100-03-01"),
            (-1, "odd date"),
            (i64::MAX, "odd date"),
            (i64::MIN, "odd date"),
            (9_007_199_254_740_991, "odd date"),
        ] {
            assert_eq!(day(milliseconds), shown, "{milliseconds}");
        }
    }
}
