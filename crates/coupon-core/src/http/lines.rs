//! The lines of a head, or of a chunked body, as they arrive: both end with a blank one.
//!
//! Invariant: where this module finds an end and actix does not, actix refuses the request.

/// The most bytes of a header's name: the type that holds one takes no more, and actix panics if there are more.
const NAME_MAX: usize = 65_535;

/// The most bytes of a first line: the type that holds its target takes no more.
const TARGET_MAX: usize = 65_534;

/// Cuts off a header's name that is too long: no name may contain this byte, so the request is refused as malformed.
const NO_NAME: u8 = 0;

/// The beginning of a request whose answer has no body.
const HEAD: &[u8] = b"HEAD ";

/// The lines that have arrived so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether anything but blank lines has arrived: blank ones before a request mean nothing.
    begun: bool,
    /// The first line that is not blank, as far as it has arrived; kept after the lines have ended.
    first: FirstLine,
    /// Bytes of the line that is arriving, without its end.
    length: usize,
    /// Whether that line has a colon, after which nothing belongs to a name.
    named: bool,
}

/// The line with the method and the target, of a request that actix may not understand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FirstLine {
    has_ended: bool,
    /// In bytes.
    length: usize,
    /// How many of its first bytes are those of [`HEAD`].
    like_head: usize,
}

impl FirstLine {
    /// Whether its answer has no body.
    pub(super) fn asks_for_head(self) -> bool {
        self.like_head == HEAD.len()
    }

    /// Whether it is longer than actix accepts.
    pub(super) fn is_too_long(self) -> bool {
        self.length > TARGET_MAX
    }

    fn take(&mut self, byte: u8) {
        if self.like_head == self.length && HEAD.get(self.length) == Some(&byte) {
            self.like_head += 1;
        }
        self.length += 1;
    }
}

impl Lines {
    /// The first line of the head that arrived last.
    pub(super) fn first(&self) -> FirstLine {
        self.first
    }

    /// Whether a head has begun to arrive.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Returns where the first blank line ends, if one does; the next lines begin there. Changes a name that is too
    /// long into one that is refused.
    pub(super) fn blank(&mut self, bytes: &mut [u8]) -> Option<usize> {
        for (position, byte) in bytes.iter_mut().enumerate() {
            match *byte {
                b'\r' => {}
                b'\n' if self.length == 0 && self.begun => {
                    *self = Self { first: self.first, ..Self::default() };
                    return Some(position + 1);
                }
                b'\n' => {
                    self.first.has_ended = self.begun;
                    (self.length, self.named) = (0, false);
                }
                other => {
                    if !self.begun {
                        (self.begun, self.first) = (true, FirstLine::default());
                    }
                    if !self.first.has_ended {
                        self.first.take(other);
                    }
                    self.named |= other == b':';
                    if self.length >= NAME_MAX && !self.named {
                        *byte = NO_NAME;
                    }
                    self.length += 1;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[a:\r\n]{2,40}") {
            ends(&text);
        }
    }

    /// Where the lines end, given in pieces of every size.
    fn ends(text: &str) -> Vec<usize> {
        let of_size = |size: usize| {
            let (mut lines, mut bytes, mut at, mut ends) = (Lines::default(), text.as_bytes().to_vec(), 0, Vec::new());
            while at < bytes.len() {
                let piece = size.min(bytes.len() - at);
                let end = lines.blank(&mut bytes[at..at + piece]);
                at += end.unwrap_or(piece);
                ends.extend(end.map(|_| at));
            }
            ends
        };
        let all = of_size(text.len());
        for size in 1..text.len() {
            assert_eq!(of_size(size), all, "in pieces of {size} bytes");
        }
        all
    }

    #[test]
    fn a_head_ends_with_a_blank_line() {
        assert_eq!(ends("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /"), [27]);
        assert_eq!(ends("GET / HTTP/1.1\nhost: a\n\nGET /"), [24]);
        assert_eq!(ends("\r\n\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\r\n"), [21, 38]);
        assert_eq!(ends("GET / HTTP/1.1\r\n \r\nhost: a"), [0; 0]);
    }

    #[test]
    fn a_body_in_chunks_ends_with_a_blank_line() {
        assert_eq!(ends("4\r\n{}\r\n\r\n0\r\n\r\nGET"), [9, 14]);
        assert_eq!(ends("2\r\n{}\r\n0\r\nended: yes\r\n\r\nGET"), [24]);
    }

    #[test]
    fn the_first_line_is_known_when_the_lines_have_ended() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_MAX));
        let texts =
            ["\r\nHEAD / HTTP/1.1\r\nx: y\r\n\r\n", "HEADER / HTTP/1.1\n\n", "GET HEAD \n\n", "a\nHEAD \n\n", &long];
        let firsts = texts.map(|text| {
            let mut lines = Lines::default();
            lines.blank(&mut b"HEAD / HTTP/1.1\r\n\r\n".to_vec());
            for byte in text.bytes() {
                lines.blank(&mut [byte]);
            }
            (lines.first().asks_for_head(), lines.first().is_too_long())
        });
        assert_eq!(firsts, [(true, false), (false, false), (false, false), (false, false), (false, true)]);
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let after = |text: String| {
            let mut bytes = text.into_bytes();
            Lines::default().blank(&mut bytes);
            bytes.contains(&NO_NAME)
        };
        assert!(!after(format!("{}: 1", "a".repeat(NAME_MAX))));
        assert!(after(format!("{}: 1", "a".repeat(NAME_MAX + 1))));
        assert!(!after(format!("a:{}", "a".repeat(2 * NAME_MAX))));
    }
}
