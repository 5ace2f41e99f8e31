//! Trailer sections: which of their fields may pass (RFC 9110 section 6.5.1).

use super::response::put_field;
use crate::config::Underscores;
use crate::http1::field::{Field, Name};
use crate::limits::TRAILER_COUNT_MAX;

/// What of a section passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// What becomes of names with underscores: an app server that folds them may
    /// do so in trailers too.
    pub(super) underscores: Underscores,
    /// The head names fields in `Connection` that end here, in a trailer too (RFC
    /// 9110 section 7.6.1). Their names are not kept: then nothing passes.
    pub(super) hidden: bool,
}

/// Room for the fields of one section.
pub(super) type Storage<'b> = [Field<'b>; TRAILER_COUNT_MAX];

/// Fresh [`Storage`].
pub(super) fn storage<'b>() -> Storage<'b> {
    [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX]
}

impl Policy {
    /// Everything that may stand in a trailer.
    pub(super) const ALL: Policy = Policy { underscores: Underscores::Pass, hidden: false };

    /// Whether a field passes.
    pub(super) fn lets(self, name: &str) -> bool {
        let allowed = match Name::of(name) {
            Name::Underscored if self.underscores != Underscores::Pass => false,
            Name::Underscored => !Name::folded(name).forbidden_in_trailer(&name.replace('_', "-")),
            known => !known.forbidden_in_trailer(name),
        };
        allowed && !self.hidden
    }
}

/// The fields of a section that may pass; the decoder has checked that it is one.
/// `None` if it is none.
pub(super) fn fields<'s, 'b>(
    section: &'b [u8],
    policy: Policy,
    storage: &'s mut Storage<'b>,
) -> Option<impl Iterator<Item = &'s Field<'b>>> {
    let fields = match httparse::parse_headers(section, storage) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => fields,
        _ => return None,
    };
    Some(fields.iter().filter(move |field| policy.lets(field.name)))
}

/// Writes the fields of a section that may pass, and its end. `None` if it is none.
pub(super) fn write(section: &[u8], policy: Policy, out: &mut Vec<u8>) -> Option<()> {
    for field in fields(section, policy, &mut storage())? {
        put_field(field.name.as_bytes(), field.value, out);
    }
    out.extend_from_slice(b"\r\n");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(section: &str, policy: Policy) -> Option<String> {
        let mut out = Vec::new();
        write(section.as_bytes(), policy, &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_trailer_keeps_what_may_stand_in_one() {
        let section = "Content-Length: 1\r\nX-Sum: 9\r\nmy_sum: 8\r\ncontent_length: 7\r\n\r\n";
        let drop = Policy { underscores: Underscores::Drop, ..Policy::ALL };
        let dropped = written(section, drop).unwrap();
        assert_eq!(dropped, "X-Sum: 9\r\n\r\n");
        let passed = written(section, Policy::ALL).unwrap();
        assert_eq!(passed, "X-Sum: 9\r\nmy_sum: 8\r\n\r\n");
        let hidden = written(section, Policy { hidden: true, ..Policy::ALL }).unwrap();
        assert_eq!(hidden, "\r\n");
    }

    #[test]
    fn what_is_no_section_is_none() {
        for bad in ["broken\r\n\r\n", "A: b\r\n c\r\n\r\n", "A : b\r\n\r\n"] {
            assert_eq!(written(bad, Policy::ALL), None, "{bad:?}");
        }
    }
}
