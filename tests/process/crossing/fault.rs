//! The ways in which an app server can be broken, and how often each is.

use super::tag::{Shape, Tag};
use crate::support::Rng;

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It ends before its end.
    Cut {
        at: Where,
        reset: bool,
    },
    /// The connection ends behind it, unannounced.
    CloseAfter {
        reset: bool,
    },
    /// There is more in the same piece: garbage, or an answer that nobody asked for.
    Behind {
        forged: bool,
    },
    /// There is more when the connection is idle.
    Late(Late),
    /// A body where there can be none.
    BodyWithoutRoom,
    /// `Content-Length` and `Transfer-Encoding`.
    TwoLengths,
    /// It comes before the request has been read.
    Early {
        close: bool,
    },
    /// Interim responses first.
    Interims,
    /// In pieces.
    Slow,
    /// After a while.
    Silence,
    /// The end of the connection is its end: no fault, but easily taken for one.
    UntilClose,
}

/// Where an answer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    BeforeHead,
    InHead,
    InBody,
    /// In a body that ends with its connection: always by a reset.
    UntilClose,
}

/// What comes while nobody waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    Forged,
    /// A forged answer when the client has had its own: the connection is in the pool.
    Idle,
    Garbage,
    Blank,
    /// A forged answer on a connection that has not been used yet.
    Greeting,
}

impl Late {
    pub(super) fn name(self) -> &'static str {
        match self {
            Late::Forged => "late: forged answer",
            Late::Idle => "idle: forged answer",
            Late::Garbage => "late: garbage",
            Late::Blank => "late: blank lines",
            Late::Greeting => "greeting",
        }
    }

    /// The same, when the proxy closed the connection on it.
    pub(super) fn seen(self) -> &'static str {
        match self {
            Late::Forged => "late: forged answer, noticed",
            Late::Idle => "idle: forged answer, noticed",
            Late::Garbage => "late: garbage, noticed",
            Late::Blank => "late: blank lines, noticed",
            Late::Greeting => "greeting, noticed",
        }
    }

    /// The same, when the proxy sent a request there.
    pub(super) fn taken(self) -> &'static str {
        match self {
            Late::Forged => "late: forged answer, taken",
            Late::Idle => "idle: forged answer, taken",
            Late::Garbage => "late: garbage, taken",
            Late::Blank => "late: blank lines, taken",
            Late::Greeting => "greeting, taken",
        }
    }
}

/// Everything that has to have happened in a run.
pub(super) const ALL: [&str; 24] = [
    "fault: cut before the head",
    "fault: cut in the head",
    "fault: cut in the body",
    "fault: reset before the head",
    "fault: reset in the head",
    "fault: reset in the body",
    "fault: reset in a body up to the end",
    "fault: close after it",
    "fault: reset after it",
    "fault: garbage in the same piece",
    "fault: forged answer in the same piece",
    "idle: forged answer",
    "late: forged answer",
    "late: garbage",
    "late: blank lines",
    "greeting",
    "fault: body where none can be",
    "fault: two lengths",
    "fault: early, then close",
    "fault: early, then read on",
    "fault: interim responses",
    "fault: slow pieces",
    "fault: silence",
    "fault: body up to the end",
];

impl Fault {
    /// What goes wrong with the answer to this request.
    pub(super) fn pick(rng: &mut Rng, tag: Tag) -> Fault {
        let reset = rng.one_in(2);
        let posts = matches!(tag.shape(), Shape::Length | Shape::Chunked);
        match rng.below(1000) {
            0..12 => Fault::Cut { at: Where::BeforeHead, reset },
            12..24 => Fault::Cut { at: Where::InHead, reset },
            24..44 if tag.has_body() => Fault::Cut { at: Where::InBody, reset },
            44..54 if tag.has_body() => Fault::Cut { at: Where::UntilClose, reset: true },
            54..74 => Fault::CloseAfter { reset },
            74..84 => Fault::Behind { forged: false },
            84..104 => Fault::Behind { forged: true },
            104..114 => Fault::Late(Late::Forged),
            114..134 => Fault::Late(Late::Idle),
            134..144 => Fault::Late(Late::Garbage),
            144..149 => Fault::Late(Late::Blank),
            149..179 if !tag.has_body() => Fault::BodyWithoutRoom,
            179..187 => Fault::TwoLengths,
            187..227 if posts => Fault::Early { close: reset },
            227..239 => Fault::Interims,
            239..247 => Fault::Slow,
            247..252 => Fault::Silence,
            252..262 => Fault::UntilClose,
            _ => Fault::None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::None => "fault: none",
            Fault::Cut { at: Where::BeforeHead, reset: false } => "fault: cut before the head",
            Fault::Cut { at: Where::InHead, reset: false } => "fault: cut in the head",
            Fault::Cut { at: Where::InBody, reset: false } => "fault: cut in the body",
            Fault::Cut { at: Where::BeforeHead, reset: true } => "fault: reset before the head",
            Fault::Cut { at: Where::InHead, reset: true } => "fault: reset in the head",
            Fault::Cut { at: Where::InBody, reset: true } => "fault: reset in the body",
            Fault::Cut { at: Where::UntilClose, .. } => "fault: reset in a body up to the end",
            Fault::CloseAfter { reset: false } => "fault: close after it",
            Fault::CloseAfter { reset: true } => "fault: reset after it",
            Fault::Behind { forged: false } => "fault: garbage in the same piece",
            Fault::Behind { forged: true } => "fault: forged answer in the same piece",
            Fault::Late(_) => "fault: something late, if the connection is idle",
            Fault::BodyWithoutRoom => "fault: body where none can be",
            Fault::TwoLengths => "fault: two lengths",
            Fault::Early { close: true } => "fault: early, then close",
            Fault::Early { close: false } => "fault: early, then read on",
            Fault::Interims => "fault: interim responses",
            Fault::Slow => "fault: slow pieces",
            Fault::Silence => "fault: silence",
            Fault::UntilClose => "fault: body up to the end",
        }
    }
}
