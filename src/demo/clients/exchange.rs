//! One request over HTTP/1.1, and its answer, octet by octet.

use std::io::{self, Write as _};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::kind::{Job, Sends};
use super::tally::Way;
use super::upload::Upload;
use crate::demo::app::{Checksum, ID};
use crate::http1::field::{Name, has_token};
use crate::http1::framing::FramingFields;
use crate::http1::head::parse_response;
use crate::http1::{Decoder, Emit, Framing, storage};
use crate::limits::{BUFFER, DEMO_ANSWER_MAX, DEMO_PATIENCE};
