//! What the benches share: an application that costs next to nothing ([`backend`]), the
//! loads that ask it through a proxy and check each answer ([`load`], [`h2load`],
//! [`idle`]), the proxy's process ([`proxy`]), and what the kernel knows of it ([`host`],
//! [`memory`]).

#![allow(dead_code, reason = "not every bench uses every part")]

pub(crate) mod backend;
pub(crate) mod h2load;
pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod idle;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod poller;
pub(crate) mod proxy;

/// Any failure that ends a measurement, already in words.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
