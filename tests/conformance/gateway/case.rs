//! The cases of a file.
//!
//! ```text
//! case connection.names-a-field
//! MUST RFC 9110 7.6.1: a nominated field goes no further
//! over both
//! request GET /
//! | Connection: X-Own
//! | X-Own: 1
//! reply 200 OK
//! | X-Other: 1
//! client status 200
//! client field X-Other = 1
//! origin no X-Own
//! ```
//!
//! A line after `|` ends with CRLF, one after `+` does not; both have the escapes of
//! [`crate::octets`]. `send` is what the client writes; `request` begins it with a request line
//! and `Host: app.test`, and ends the head if no line does. Over HTTP/2 it is taken apart and
//! sent as a stream, its fields `Behind-NAME` as trailers. The first expectation behind it reads
//! the response; `next` reads another one, of a request that was sent in the same piece.
//! `half-close` ends the client's side.
//!
//! Each `answer` is for the next request that reaches the origin, behind the last comes a plain
//! 200 with `ok`. `reply` begins it with a status line, and ends it with the body `ok` if no
//! line ends the head. Its lines may be acts, after `~`: `body` (read the rest of the request; by
//! itself the first act unless it says `answer early`), `pause MS`, `close`, `reset`, `silent`.
//! `answer eager` comes before the request does. A case is `over h1` unless it says `over h2` or
//! `over both`, and for everybody unless it says `ours`.

use super::check::Check;
use crate::octets;
use crate::support::wire::find;

/// How much an RFC asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Whoever does not do it breaks the protocol.
    Must,
    /// It takes a good reason not to do it.
    Should,
    /// It is of use.
    May,
}

impl Level {
    /// As the RFCs write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "MAY",
        }
    }
}

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1
    H1,
    /// HTTP/2
    H2,
}

/// What the origin does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Reads the rest of it.
    Body,
    /// Writes.
    Write(Vec<u8>),
    /// Waits so many milliseconds.
    Pause(u64),
    /// Ends the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Says nothing until the proxy or the case is through.
    Silent,
}

/// What the origin does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether it does so before it is asked.
    pub(crate) eager: bool,
    /// What it does.
    pub(crate) acts: Vec<Act>,
}

/// What the client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes a request.
    Send(Vec<u8>),
    /// Reads a response.
    Read,
    /// Ends its side.
    HalfClose,
    /// Compares.
    Expect(Check),
}

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it is called.
    pub(crate) name: String,
    /// How much is asked for it.
    pub(crate) level: Level,
    /// By whom and why.
    pub(crate) why: String,
    /// What the client speaks: one, or both in turn.
    pub(crate) over: Vec<Over>,
    /// What the client does.
    pub(crate) steps: Vec<Step>,
    /// What the origin does with one request after another.
    pub(crate) answers: Vec<Answer>,
    /// Only asked of our own proxy: it takes settings of ours.
    pub(crate) ours: bool,
}

/// Where the lines with octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Send,
    /// The head that `request` began.
    Request,
    Answer,
    /// The head that `reply` began.
    Reply,
}

/// The cases of a file.
///
/// # Panics
/// With file and line when it is none.
pub(crate) fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut block = Block::None;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let taken = match line.strip_prefix("case ") {
            Some(name) => {
                let same = cases.iter().any(|case| case.name == name);
                end_block(&mut cases, &mut block);
                cases.push(Case::named(name));
                if same { Err("a name that is there already".to_owned()) } else { Ok(()) }
            }
            None => match cases.last_mut() {
                Some(case) => case.take(line, &mut block),
                None => Err("no case yet".to_owned()),
            },
        };
        taken.unwrap_or_else(|wrong| panic!("{file}:{}: {wrong}: {line}", number + 1));
    }
    end_block(&mut cases, &mut block);
    for case in &cases {
        assert!(!case.why.is_empty(), "{file}: {} says no why", case.name);
        let expects = case.steps.iter().any(|step| matches!(step, Step::Expect(_)));
        assert!(expects, "{file}: {} expects nothing", case.name);
    }
    cases
}

fn end_block(cases: &mut [Case], block: &mut Block) {
    if let Some(case) = cases.last_mut() {
        case.end_block(block);
    }
}

impl Case {
    fn named(name: &str) -> Case {
        Case {
            name: name.to_owned(),
            level: Level::Must,
            why: String::new(),
            over: vec![Over::H1],
            steps: Vec::new(),
            answers: Vec::new(),
            ours: false,
        }
    }

    fn take(&mut self, line: &str, block: &mut Block) -> Result<(), String> {
        if let Some((mark, rest)) = line.split_at_checked(1)
            && ["|", "+", "~"].contains(&mark)
        {
            return self.take_octets(mark, rest.strip_prefix(' ').unwrap_or(rest), *block);
        }
        self.end_block(block);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "MUST" | "SHOULD" | "MAY" => {
                self.level = match word {
                    "MUST" => Level::Must,
                    "SHOULD" => Level::Should,
                    _ => Level::May,
                };
                self.why = rest.to_owned();
            }
            "over" => {
                self.over = match rest {
                    "h1" => vec![Over::H1],
                    "h2" => vec![Over::H2],
                    "both" => vec![Over::H1, Over::H2],
                    _ => return Err("h1, h2 or both".to_owned()),
                };
            }
            "send" => {
                self.steps.push(Step::Send(Vec::new()));
                *block = Block::Send;
            }
            "request" => {
                let mut head = octets::read(rest)?;
                head.extend(b" HTTP/1.1\r\nHost: app.test\r\n");
                self.steps.push(Step::Send(head));
                *block = Block::Request;
            }
            "reply" => {
                let line = format!("HTTP/1.1 {rest}\r\n");
                let acts = vec![Act::Body, Act::Write(line.into())];
                self.answers.push(Answer { eager: false, acts });
                *block = Block::Reply;
            }
            "answer" => {
                let (eager, acts) = match rest {
                    "" => (false, vec![Act::Body]),
                    "early" => (false, Vec::new()),
                    "eager" => (true, Vec::new()),
                    _ => return Err("early, eager or nothing".to_owned()),
                };
                self.answers.push(Answer { eager, acts });
                *block = Block::Answer;
            }
            "ours" if rest.is_empty() => self.ours = true,
            "next" => self.steps.push(Step::Read),
            "half-close" => self.steps.push(Step::HalfClose),
            _ => {
                let unread = matches!(self.steps.last(), Some(Step::Send(_) | Step::HalfClose));
                if unread {
                    self.steps.push(Step::Read);
                }
                self.steps.push(Step::Expect(Check::parse(line)?));
            }
        }
        Ok(())
    }

    /// Ends a head that the case left open.
    fn end_block(&mut self, block: &mut Block) {
        let is_open = |octets: &[u8]| find(octets, b"\r\n\r\n").is_none();
        match (*block, self.steps.last_mut(), self.answers.last_mut()) {
            (Block::Request, Some(Step::Send(octets)), _) if is_open(octets) => {
                octets.extend(b"\r\n");
            }
            (Block::Reply, _, Some(answer)) => {
                if let Some(Act::Write(octets)) = answer.acts.last_mut()
                    && is_open(octets)
                {
                    octets.extend(b"Content-Length: 2\r\n\r\nok");
                }
            }
            _ => {}
        }
        *block = Block::None;
    }

    fn take_octets(&mut self, mark: &str, rest: &str, block: Block) -> Result<(), String> {
        let act = match mark {
            "~" => act(rest)?,
            _ => {
                let mut octets = octets::read(rest)?;
                if mark == "|" {
                    octets.extend(b"\r\n");
                }
                Act::Write(octets)
            }
        };
        match (block, act, self.steps.last_mut(), self.answers.last_mut()) {
            (Block::Send | Block::Request, Act::Write(octets), Some(Step::Send(all)), _) => {
                all.extend(octets);
            }
            (Block::Answer | Block::Reply, act, _, Some(answer)) => {
                match (answer.acts.last_mut(), act) {
                    (Some(Act::Write(all)), Act::Write(octets)) => all.extend(octets),
                    (_, act) => answer.acts.push(act),
                }
            }
            _ => return Err("octets that belong to nothing".to_owned()),
        }
        Ok(())
    }
}

fn act(text: &str) -> Result<Act, String> {
    Ok(match text.split_once(' ').unwrap_or((text, "")) {
        ("body", "") => Act::Body,
        ("close", "") => Act::Close,
        ("reset", "") => Act::Reset,
        ("silent", "") => Act::Silent,
        ("pause", ms) => Act::Pause(ms.parse().map_err(|_| "no number")?),
        _ => return Err("no act".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read() {
        let text = "# what\ncase one\nSHOULD because\nover both\nsend\n| GET / HTTP/1.1\n+ x\n\
                    answer early\n| HTTP/1.1 200 OK\n~ pause 5\n~ close\nclient status 200\n\
                    client no X\n";
        let cases = parse("test", text);
        let case = &cases[0];
        assert_eq!((case.level, case.why.as_str()), (Level::Should, "because"));
        assert_eq!(case.over, [Over::H1, Over::H2]);
        assert!(matches!(&case.steps[0], Step::Send(o) if o == b"GET / HTTP/1.1\r\nx"));
        assert!(matches!(&case.steps[1], Step::Read));
        assert_eq!(case.steps.len(), 4);
        let head = Act::Write(b"HTTP/1.1 200 OK\r\n".to_vec());
        assert_eq!(case.answers[0].acts, [head, Act::Pause(5), Act::Close]);
    }

    #[test]
    fn heads_that_are_left_open_are_ended() {
        let text = "case one\nMUST why\nrequest GET /a\n| X: 1\nreply 200 OK\nclient status 200\n";
        let case = &parse("test", text)[0];
        let sent = b"GET /a HTTP/1.1\r\nHost: app.test\r\nX: 1\r\n\r\n";
        assert!(matches!(&case.steps[0], Step::Send(octets) if octets == sent));
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        assert_eq!(case.answers[0].acts, [Act::Body, Act::Write(reply)]);
    }

    #[test]
    #[should_panic(expected = "test:3: no such expectation")]
    fn a_line_that_is_nothing_is_named() {
        parse("test", "case one\nMUST why\nclient frobs\n");
    }
}
