//! What one pass over the fields of a request finds.

use crate::http1::RequestHead;
use crate::http1::field::{Name, Options, has_token};
use crate::http1::framing::FramingFields;
use crate::limits::HEAD_COUNT_MAX;
use crate::proxy::Failure;
use crate::proxy::grpc::is_grpc;
use crate::proxy::target::is_host;

/// What is in a head, and where.
pub(super) struct Seen<'b> {
    pub(super) names: [Name; HEAD_COUNT_MAX],
    pub(super) framing: FramingFields<'b>,
    pub(super) host: Option<&'b [u8]>,
    /// An `X-Request-Id` that is the only one.
    pub(super) id: Option<&'b [u8]>,
    pub(super) max_forwards: Option<&'b [u8]>,
    /// An `Upgrade` field.
    pub(super) upgrades: bool,
    /// What an earlier proxy says of the client, if it is one that is believed.
    pub(super) told: Told<'b>,
    pub(super) options: Options,
    pub(super) trailers: bool,
    pub(super) expects_continue: bool,
    pub(super) grpc: bool,
    /// There are fields with an underscore in their name.
    pub(super) underscores: bool,
}

/// The last field of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told<'b> {
    pub(super) clients: Option<&'b [u8]>,
    pub(super) host: Option<&'b [u8]>,
    pub(super) port: Option<&'b [u8]>,
    pub(super) scheme: Option<&'b [u8]>,
    pub(super) start: Option<&'b [u8]>,
}

impl<'b> Seen<'b> {
    #[inline]
    pub(super) fn of(head: &RequestHead<'_, 'b>) -> Result<Self, Failure> {
        let mut seen = Seen {
            names: [Name::Other; HEAD_COUNT_MAX],
            framing: FramingFields::default(),
            host: None,
            id: None,
            max_forwards: None,
            upgrades: false,
            told: Told::default(),
            options: Options::default(),
            trailers: false,
            expects_continue: false,
            grpc: false,
            underscores: false,
        };
        let (mut ids, mut hops) = (0, 0);
        for (at, field) in head.fields.iter().enumerate() {
            let name = Name::of(field.name);
            seen.names[at] = name;
            seen.framing.note(name, field);
            match name {
                Name::Host => {
                    if seen.host.replace(field.value).is_some() {
                        return Err(Failure::BadRequest("more than one Host"));
                    }
                    if !is_host(field.value) {
                        return Err(Failure::BadRequest("bad Host"));
                    }
                }
                Name::Connection => seen.options.note(field.value),
                Name::Expect => seen.expects_continue |= has_token(field.value, "100-continue"),
                Name::Te => seen.trailers |= has_token(field.value, "trailers"),
                Name::XRequestId => {
                    ids += 1;
                    seen.id = Some(field.value).filter(|_| ids == 1);
                }
                Name::ContentType => seen.grpc = is_grpc(field.value),
                Name::Underscored => seen.underscores = true,
                Name::Upgrade => seen.upgrades = true,
                Name::MaxForwards => {
                    hops += 1;
                    // Of several, none is a number.
                    seen.max_forwards = Some(if hops == 1 { field.value } else { b"" });
                }
                Name::XForwardedFor => seen.told.clients = Some(field.value),
                Name::XForwardedHost => seen.told.host = Some(field.value),
                Name::XForwardedPort => seen.told.port = Some(field.value),
                Name::XForwardedProto => seen.told.scheme = Some(field.value),
                Name::XRequestStart => seen.told.start = Some(field.value),
                _ => {}
            }
        }
        if seen.options.nominates {
            seen.leave_out_nominated(head);
        }
        Ok(seen)
    }

    /// Fields that `Connection` names end here (RFC 9110 section 7.6.1), but for
    /// those that are needed to understand the message, and for what a trusted
    /// peer says of its client: that must not be named away by the client.
    #[cold]
    fn leave_out_nominated(&mut self, head: &RequestHead<'_, 'b>) {
        for (at, field) in head.fields.iter().enumerate() {
            let may_go = matches!(
                self.names[at],
                Name::Other
                    | Name::ContentType
                    | Name::Date
                    | Name::Expect
                    | Name::Forwarded
                    | Name::Referer
                    | Name::Underscored
                    | Name::UserAgent
                    | Name::XForwardedOther
                    | Name::XRequestId
            );
            if may_go && is_nominated(head.fields, &self.names, field.name) {
                match self.names[at] {
                    Name::Expect => self.expects_continue = false,
                    Name::XRequestId => self.id = None,
                    _ => {}
                }
                self.names[at] = Name::HopByHop;
            }
        }
    }
}

/// Whether some `Connection` field names this one (RFC 9110 section 7.6.1). What
/// is needed to understand the message can not be named away.
pub(in crate::proxy) fn is_nominated(
    fields: &[httparse::Header<'_>],
    names: &[Name],
    name: &str,
) -> bool {
    let connection = fields.iter().zip(names).filter(|(_, name)| **name == Name::Connection);
    connection.into_iter().any(|(field, _)| has_token(field.value, name))
}
