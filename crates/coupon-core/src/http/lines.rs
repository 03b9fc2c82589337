//! The lines of a head, or of a body in chunks, as they arrive: both end with a blank one.
//!
//! Invariant: what is called the end here is none for actix only if actix refuses the request.

/// Bytes of a header's name at most: the type that holds one takes no more, and actix panics at one that it does not take.
const NAME_MAX: usize = 65_535;

/// Ends whatever is read as a name: no name has it, so the request is refused as malformed.
const NO_NAME: u8 = 0;

/// Where the lines are.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether a line has come that is not blank: blank ones before a request mean nothing.
    begun: bool,
    /// Bytes of the line that arrives, its end left out.
    length: usize,
    /// Whether it has a colon: what comes after that is no name.
    named: bool,
}

impl Lines {
    /// Whether a head has begun to arrive.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Where the first blank line ends, if one does; the next lines begin there. Makes a name that is too long one that
    /// is refused.
    pub(super) fn blank(&mut self, bytes: &mut [u8]) -> Option<usize> {
        for (position, byte) in bytes.iter_mut().enumerate() {
            match *byte {
                b'\r' => {}
                b'\n' if self.length == 0 && self.begun => {
                    *self = Self::default();
                    return Some(position + 1);
                }
                b'\n' => (self.length, self.named) = (0, false),
                other => {
                    self.begun = true;
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
