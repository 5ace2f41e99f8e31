//! What the proxy adds to responses that pass: `Via`, and `Date` where the app
//! server has sent none.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::inbound::HTTP_2;

/// Knows the date as text, made once a second.
#[derive(Debug)]
pub struct Stamp {
    via: bool,
    date: RefCell<Date>,
}

#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Stamp {
    /// `via` is whether `Via` is added.
    pub fn new(via: bool) -> Self {
        Stamp { via, date: RefCell::default() }
    }

    /// Gives `put` each field that is to be added to a response that came in
    /// HTTP/1.`minor` (or [`HTTP_2`]), with a date or without (RFC 9110 sections 6.6.1 and 7.6.3).
    #[inline]
    pub(super) fn each(&self, minor: u8, dated: bool, mut put: impl FnMut(&'static str, &str)) {
        if self.via {
            let via = match minor {
                0 => "1.0 ebbtide",
                HTTP_2 => "2.0 ebbtide",
                _ => "1.1 ebbtide",
            };
            put("Via", via);
        }
        if !dated {
            self.with_date(|date| put("Date", date));
        }
    }

    /// The date as HTTP writes it (RFC 9110 section 5.6.7).
    pub fn date(&self) -> String {
        self.with_date(str::to_owned)
    }

    fn with_date<T>(&self, take: impl FnOnce(&str) -> T) -> T {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut date = self.date.borrow_mut();
        if date.second != since.as_secs() || date.text.is_empty() {
            date.second = since.as_secs();
            date.text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(date.second));
        }
        take(&date.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let added = |via, minor, dated| {
            let mut names = Vec::new();
            Stamp::new(via)
                .each(minor, dated, |name, value| names.push(format!("{name}: {value}")));
            names
        };
        assert_eq!(added(true, 1, true), ["Via: 1.1 ebbtide"]);
        assert_eq!(added(true, 0, true), ["Via: 1.0 ebbtide"]);
        assert_eq!(added(true, HTTP_2, true), ["Via: 2.0 ebbtide"]);
        assert!(added(false, 1, true).is_empty());
        let date = added(false, 1, false).pop().unwrap();
        let date = date.strip_prefix("Date: ").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
}
