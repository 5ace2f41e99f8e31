//! Header fields: the names a proxy has to know, and lists of tokens.

/// One field of a message: name and value as they were sent.
pub type Field<'b> = httparse::Header<'b>;

/// The fields that mean something to a proxy; all others are passed on unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Any field that is passed on as it is.
    Other,
    /// `Connection`: hop-by-hop, and names more that are.
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Content-Type`
    ContentType,
    /// `Date`
    Date,
    /// `Expect`
    Expect,
    /// `Forwarded` (RFC 7239)
    Forwarded,
    /// `Host`
    Host,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`,
    /// `Proxy-Authentication-Info`, `HTTP2-Settings`, and `Proxy`, which CGI would read as `HTTP_PROXY`: never passed on.
    HopByHop,
    /// `Max-Forwards`
    MaxForwards,
    /// `Referer`
    Referer,
    /// `TE`
    Te,
    /// `Trailer`
    Trailer,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `User-Agent`
    UserAgent,
    /// A name with an underscore, which app servers take for the one with a hyphen.
    Underscored,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Port`
    XForwardedPort,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// Any other `X-Forwarded…`
    XForwardedOther,
    /// `X-Real-IP`
    XRealIp,
    /// `X-Request-Id`
    XRequestId,
    /// `X-Request-Start`
    XRequestStart,
}

impl Name {
    /// Looks a field name up, whatever its case. The length tells most names
    /// apart before an octet is compared.
    #[inline]
    pub fn of(name: &str) -> Name {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is("te") => Name::Te,
            5 if is("proxy") => Name::HopByHop,
            4 if is("host") => Name::Host,
            4 if is("date") => Name::Date,
            6 if is("expect") => Name::Expect,
            7 if is("upgrade") => Name::Upgrade,
            7 if is("trailer") => Name::Trailer,
            7 if is("referer") => Name::Referer,
            9 if is("forwarded") => Name::Forwarded,
            9 if is("x-real-ip") => Name::XRealIp,
            10 if is("connection") => Name::Connection,
            10 if is("keep-alive") => Name::HopByHop,
            10 if is("user-agent") => Name::UserAgent,
            12 if is("content-type") => Name::ContentType,
            12 if is("max-forwards") => Name::MaxForwards,
            12 if is("x-request-id") => Name::XRequestId,
            14 if is("content-length") => Name::ContentLength,
            14 if is("http2-settings") => Name::HopByHop,
            15 if is("x-forwarded-for") => Name::XForwardedFor,
            15 if is("x-request-start") => Name::XRequestStart,
            16 if is("proxy-connection") => Name::HopByHop,
            16 if is("x-forwarded-host") => Name::XForwardedHost,
            16 if is("x-forwarded-port") => Name::XForwardedPort,
            17 if is("transfer-encoding") => Name::TransferEncoding,
            17 if is("x-forwarded-proto") => Name::XForwardedProto,
            18 if is("proxy-authenticate") => Name::HopByHop,
            19 if is("proxy-authorization") => Name::HopByHop,
            25 if is("proxy-authentication-info") => Name::HopByHop,
            _ => Name::of_kind(name.as_bytes()),
        }
    }

    /// Names that are known by a part of them.
    #[inline]
    fn of_kind(name: &[u8]) -> Name {
        const FORWARDED: &[u8] = b"x-forwarded";
        if name.contains(&b'_') {
            Name::Underscored
        } else if name.get(..FORWARDED.len()).is_some_and(|n| n.eq_ignore_ascii_case(FORWARDED)) {
            Name::XForwardedOther
        } else {
            Name::Other
        }
    }

    /// What an app server takes a name with underscores for, which folds both
    /// spellings into one variable (RFC 3875 section 4.1.18).
    pub fn folded(name: &str) -> Name {
        Name::of(&name.replace('_', "-"))
    }

    /// Fields that frame, route, authorise or condition a message, or say how to
    /// read it, and may therefore not stand in a trailer (RFC 9110 section 6.5.1).
    pub fn forbidden_in_trailer(self, name: &str) -> bool {
        const MORE: [&str; 18] = [
            "age",
            "authorization",
            "cache-control",
            "content-encoding",
            "content-language",
            "content-location",
            "content-range",
            "cookie",
            "expires",
            "location",
            "pragma",
            "range",
            "retry-after",
            "set-cookie",
            "vary",
            "via",
            "warning",
            "www-authenticate",
        ];
        let conditional = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("if-"));
        !matches!(self, Name::Other | Name::Underscored | Name::UserAgent | Name::Referer)
            || conditional
            || MORE.iter().any(|other| name.eq_ignore_ascii_case(other))
    }
}

/// The members of a comma-separated list, blank ones left out (RFC 9110 section 5.6.1).
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// What a `Connection` field says (RFC 9110 section 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// Names of fields.
    pub nominates: bool,
    /// Names of fields that would be passed on if they were not named here.
    pub hides: bool,
}

impl Options {
    /// Adds what one field says.
    pub fn note(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                self.nominates = true;
                self.hides |= !std::str::from_utf8(token).is_ok_and(|name| {
                    matches!(
                        Name::of(name),
                        Name::HopByHop
                            | Name::Te
                            | Name::Trailer
                            | Name::TransferEncoding
                            | Name::Upgrade
                    )
                });
            }
        }
    }
}

/// Whether a comma-separated list has the member, whatever its case.
pub fn has_token(value: &[u8], token: &str) -> bool {
    tokens(value).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_only_whole() {
        assert_eq!(Name::of("cOnTeNt-LeNgTh"), Name::ContentLength);
        assert_eq!(Name::of("content-lengt"), Name::Other);
        assert_eq!(Name::of("X-Forwarded-Ssl"), Name::XForwardedOther);
        assert_eq!(Name::of("x-forwarde"), Name::Other);
        assert_eq!(Name::of("proxy-connection"), Name::HopByHop);
    }

    #[test]
    fn a_name_with_an_underscore_is_none_of_ours_and_folds_onto_one() {
        for (name, folded) in [
            ("content_length", Name::ContentLength),
            ("X-Forwarded_For", Name::XForwardedFor),
            ("x_forwarded_ssl", Name::XForwardedOther),
            ("my_field", Name::Other),
        ] {
            assert_eq!(Name::of(name), Name::Underscored);
            assert_eq!(Name::folded(name), folded);
        }
    }

    #[test]
    fn a_list_is_split_at_commas_and_trimmed() {
        assert!(has_token(b" keep-alive ,\tClose", "close"));
        assert!(!has_token(b"closed, not-close", "close"));
        assert_eq!(tokens(b",, a ,").count(), 1);
    }

    #[test]
    fn a_connection_field_says_what_becomes_of_the_connection_and_what_ends_here() {
        let said = |values: &[&str]| {
            let mut options = Options::default();
            values.iter().for_each(|value| options.note(value.as_bytes()));
            (options.close, options.keep_alive, options.nominates, options.hides)
        };
        assert_eq!(said(&["Keep-Alive"]), (false, true, false, false));
        assert_eq!(said(&["TE, upgrade", "close"]), (true, false, true, false));
        assert_eq!(said(&["TE", "x-a"]), (false, false, true, true));
    }

    #[test]
    fn framing_routing_and_credentials_may_not_come_in_a_trailer() {
        for name in [
            "Content-Length",
            "Transfer-Encoding",
            "Host",
            "Authorization",
            "Set-Cookie",
            "If-Match",
        ] {
            assert!(Name::of(name).forbidden_in_trailer(name), "{name}");
        }
        for name in ["Server-Timing", "grpc-status", "Digest"] {
            assert!(!Name::of(name).forbidden_in_trailer(name), "{name}");
        }
    }
}
