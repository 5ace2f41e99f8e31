//! Buffers that a worker uses again and again.

use std::cell::RefCell;

use crate::http1::Buffer;
use crate::limits::{BUFFER, BULK_BUFFER, SPARE_BUFFERS, SPARE_BULK_BUFFERS};

/// A worker's free buffers: small ones for heads and small bodies, large ones
/// for bodies that fill those.
#[derive(Default)]
pub struct Spare {
    heads: RefCell<Vec<Vec<u8>>>,
    small: RefCell<Vec<Buffer>>,
    bulk: RefCell<Vec<Buffer>>,
}

impl Spare {
    /// A buffer of [`BUFFER`] octets.
    #[inline]
    pub fn small(&self) -> Buffer {
        self.small.borrow_mut().pop().unwrap_or_else(|| Buffer::with_capacity(BUFFER))
    }

    /// An empty buffer to write a head into.
    #[inline]
    pub fn head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a head's buffer back, unless it has become large.
    #[inline]
    pub fn give_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_BUFFERS && head.capacity() <= BUFFER {
            head.clear();
            heads.push(head);
        }
    }

    /// Exchanges a buffer that a body has filled for a large one with the same octets.
    pub fn enlarge(&self, buffer: &mut Buffer) {
        let mut bulk =
            self.bulk.borrow_mut().pop().unwrap_or_else(|| Buffer::with_capacity(BULK_BUFFER));
        bulk.append(buffer.filled());
        self.give(std::mem::replace(buffer, bulk));
    }

    /// Takes a buffer back. One of another size is simply freed, so that a huge
    /// head does not stay with the worker.
    #[inline]
    pub fn give(&self, mut buffer: Buffer) {
        let (list, most) = match buffer.capacity() {
            BUFFER => (&self.small, SPARE_BUFFERS),
            BULK_BUFFER => (&self.bulk, SPARE_BULK_BUFFERS),
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < most {
            buffer.clear();
            list.push(buffer);
        }
    }
}
