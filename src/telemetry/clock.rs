//! Wall time as text: RFC 3339 for JSON, the Apache form for the combined log.
//!
//! Owns the arithmetic from Unix time to a UTC date. Promises that a
//! [`ClockText`] formats a date once per second, so that a log line costs a copy.
//! Does not know time zones: everything is written in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Milliseconds since the Unix epoch; 0 for times before it.
pub fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Formats times, remembering the text of the last second.
#[derive(Debug)]
pub struct ClockText {
    second: u64,
    /// `2026-11-22T01:02:03.`
    rfc3339: [u8; 20],
    /// `22/Nov/2026:01:02:03 +0000`
    apache: [u8; 26],
}

impl Default for ClockText {
    fn default() -> Self {
        let mut text = Self { second: 0, rfc3339: [0; 20], apache: [0; 26] };
        text.render(0);
        text
    }
}

impl ClockText {
    /// Appends `2026-11-22T01:02:03.456Z`.
    pub fn push_rfc3339(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let millis = unix_millis(time);
        self.set(millis / 1000);
        out.extend_from_slice(&self.rfc3339);
        push_millis(millis, out);
        out.push(b'Z');
    }

    /// Appends `01:02:03.456`, for a person at a terminal.
    pub fn push_time_of_day(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let millis = unix_millis(time);
        self.set(millis / 1000);
        out.extend_from_slice(&self.rfc3339[11..]);
        push_millis(millis, out);
    }

    /// Appends `22/Nov/2026:01:02:03 +0000`.
    pub fn push_apache(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        self.set(unix_millis(time) / 1000);
        out.extend_from_slice(&self.apache);
    }

    fn set(&mut self, second: u64) {
        if second != self.second {
            self.render(second);
        }
    }

    fn render(&mut self, second: u64) {
        self.second = second;
        let (year, month, day) = civil_from_days(second / 86_400);
        let of_day = second % 86_400;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);

        let text = &mut self.rfc3339;
        text.copy_from_slice(b"0000-00-00T00:00:00.");
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], hour);
        put(&mut text[14..16], minute);
        put(&mut text[17..19], second);

        let text = &mut self.apache;
        text.copy_from_slice(b"00/Jan/0000:00:00:00 +0000");
        put(&mut text[0..2], day);
        text[3..6].copy_from_slice(MONTHS[(month as usize - 1) % 12]);
        put(&mut text[7..11], year);
        put(&mut text[12..14], hour);
        put(&mut text[15..17], minute);
        put(&mut text[18..20], second);
    }
}

fn push_millis(millis: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 3];
    put(&mut digits, millis % 1000);
    out.extend_from_slice(&digits);
}

/// Writes `value` right-aligned with leading zeros.
fn put(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The date of a day counted from 1970-01-01 (Hinnant, "chrono-compatible
/// low-level date algorithms"; eras of 400 years begin on 1 March).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all(second: u64, millis: u64) -> (String, String, String) {
        let mut clock = ClockText::default();
        let time = UNIX_EPOCH + Duration::from_millis(second * 1000 + millis);
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        clock.push_rfc3339(time, &mut a);
        clock.push_time_of_day(time, &mut b);
        clock.push_apache(time, &mut c);
        (
            String::from_utf8(a).unwrap(),
            String::from_utf8(b).unwrap(),
            String::from_utf8(c).unwrap(),
        )
    }

    #[test]
    fn known_instants_are_written_in_each_form() {
        for (second, millis, rfc3339, day, apache) in [
            (0, 0, "1970-01-01T00:00:00.000Z", "00:00:00.000", "01/Jan/1970:00:00:00 +0000"),
            (
                951_782_400,
                7,
                "2000-02-29T00:00:00.007Z",
                "00:00:00.007",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_795_309_323,
                456,
                "2026-11-22T01:02:03.456Z",
                "01:02:03.456",
                "22/Nov/2026:01:02:03 +0000",
            ),
            (
                4_107_542_399,
                999,
                "2100-02-28T23:59:59.999Z",
                "23:59:59.999",
                "28/Feb/2100:23:59:59 +0000",
            ),
            (
                4_107_542_400,
                0,
                "2100-03-01T00:00:00.000Z",
                "00:00:00.000",
                "01/Mar/2100:00:00:00 +0000",
            ),
        ] {
            assert_eq!(all(second, millis), (rfc3339.into(), day.into(), apache.into()));
        }
    }

    #[test]
    fn a_time_before_the_epoch_is_written_as_the_epoch() {
        let mut out = Vec::new();
        ClockText::default().push_rfc3339(UNIX_EPOCH - Duration::from_secs(5), &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }
}
