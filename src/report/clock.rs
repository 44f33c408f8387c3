//! Times of scans.

/// Seconds since 1970 of an RFC 3339 time (`2025-03-25T10:00:00Z`; offset and fraction optional, blank or T between
/// date and time); `None` for anything else. A time without offset counts as UTC.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day) as f64 * 86400.0;
    if rest.is_empty() {
        return Some(days);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset) = split_offset(rest)?;
    let mut parts = clock.split(':');
    let hour: f64 = parts.next()?.parse().ok()?;
    let minute: f64 = parts.next()?.parse().ok()?;
    let second: f64 = parts.next().map_or(Some(0.0), |s| s.parse().ok())?;
    ((0.0..24.0).contains(&hour) && (0.0..60.0).contains(&minute) && (0.0..61.0).contains(&second))
        .then_some(days + 3600.0 * hour + 60.0 * minute + second - offset)
}

/// The clock part and the offset from UTC \[s\].
fn split_offset(text: &str) -> Option<(&str, f64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0.0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0.0));
    };
    let sign = if text[at..].starts_with('-') {
        -1.0
    } else {
        1.0
    };
    let digits: String = text[at + 1..]
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let hours: f64 = digits.get(..2)?.parse().ok()?;
    let minutes: f64 = digits.get(2..4).map_or(Some(0.0), |m| m.parse().ok())?;
    Some((&text[..at], sign * (3600.0 * hours + 60.0 * minutes)))
}

/// Days since 1970-01-01 in the Gregorian calendar.
///
/// Source: H. Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(seconds("2025-03-25T10:00:00Z"), Some(1_742_896_800.0));
        assert_eq!(
            seconds("2025-03-25T12:00:00.5+02:00"),
            Some(1_742_896_800.5)
        );
        assert_eq!(seconds("2000-02-29"), Some(951_782_400.0));
        assert_eq!(seconds("yesterday"), None);
        assert_eq!(seconds("2025-13-25T10:00:00Z"), None);
        assert_eq!(seconds("µ025-03-2"), None);
    }
}
