//! All proxies at once, and what they have in common for a whole run.

use std::net::SocketAddr;

use crate::program::{Make, Program, Variant};
use crate::running::{Prepared, Running};
use crate::support::Error;
use crate::support::identity::Identity;

/// What every row needs.
pub(crate) struct Field {
    /// ebbtide first.
    pub(crate) programs: Vec<Program>,
    pub(crate) identity: Identity,
    /// An application that answers with 1 KB.
    pub(crate) upstream: SocketAddr,
}

/// A program as one row configures it.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) program: &'a Program,
    pub(crate) variant: Variant,
}

impl Entry<'_> {
    /// The name in a table.
    pub(crate) fn name(&self) -> String {
        let name = self.program.name();
        if self.variant == Variant::Unbuffered { format!("{name}, unbuffered") } else { name }
    }
}

impl Field {
    /// Every program in this variant.
    pub(crate) fn entries(&self, variant: Variant) -> Vec<Entry<'_>> {
        self.programs.iter().map(|program| Entry { program, variant }).collect()
    }

    /// The programs of one make in this variant.
    pub(crate) fn entries_of(&self, make: Make, variant: Variant) -> Vec<Entry<'_>> {
        let mut entries = self.entries(variant);
        entries.retain(|entry| entry.program.make == make);
        entries
    }

    /// Starts the entry that has this number in its row, before an application.
    pub(crate) fn start(
        &self,
        number: usize,
        entry: Entry<'_>,
        upstream: SocketAddr,
    ) -> Result<Running, Error> {
        Running::start(Prepared::new(self, number, entry, upstream)?)
    }
}
