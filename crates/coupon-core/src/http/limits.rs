//! How much of a request is read, and for how long.

use std::time::Duration;

/// A claim is two dozen bytes; this leaves room for a client that likes white space.
pub(super) const BODY_MAX: usize = 1024;

/// A client has this long to send the head of a request, and as long again for its body; before that, as long for the
/// TLS handshake.
pub(super) const RECEIVE_DEADLINE: Duration = Duration::from_secs(5);
