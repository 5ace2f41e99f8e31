//! What is wrong with a configuration, said so that it can be put right.
//!
//! Owns the wording. Each error names where the value came from, the key, what
//! was found and what would have been allowed. A load collects every error it
//! can find; nothing here stops at the first.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file, or the whole file.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment(String),
    /// An argument of `--set`.
    Set,
    /// A flag of the command line, `--listen`.
    Flag(&'static str),
    /// All sources together.
    Whole,
}

impl Origin {
    /// Where its errors stand in a report: a file line by line, then the rest.
    pub(super) fn rank(&self) -> usize {
        match self {
            Self::File { line, .. } => line.unwrap_or(0),
            _ => usize::MAX,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Whole => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Error {
    /// Where it was said.
    pub origin: Origin,
    /// The key it was said of, as written.
    pub key: Option<String>,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "{}", self.problem)?;
        // One line an error: nobody above prints the chain.
        match &self.problem {
            Problem::Unreadable(source) => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

/// What can be wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such key, table or variable.
    #[error("unknown {what}{}", Hint(suggestion))]
    Unknown {
        /// `key`, `table` or `variable`.
        what: &'static str,
        /// The name that was probably meant, or another advice.
        suggestion: Option<String>,
    },
    /// The value is none of the allowed ones.
    #[error("found {found}{}; allowed: {allowed}", Because(*.why))]
    Value {
        /// The value as it was written.
        found: String,
        /// Why it is refused, where the allowed forms do not tell.
        why: Option<&'static str>,
        /// What would have been allowed.
        allowed: String,
    },
    /// The file is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// The file cannot be read.
    #[error("cannot read it")]
    Unreadable(#[source] std::io::Error),
    /// The value is fine by itself, but not together with the others.
    #[error("{0}")]
    Conflict(String),
}

/// `; did you mean …?`
struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// ` (why)`
struct Because(Option<&'static str>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, one line each. Never empty.
#[derive(Debug)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Legal, but perhaps not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key to look at.
    pub key: &'static str,
    /// What will happen.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}
