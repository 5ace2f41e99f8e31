//! Certificates as operators have them, and sessions against a client of rustls.
