//! What commands print: results to standard output, errors and notes to standard error.
//!
//! Invariants: text that others wrote (names, arguments, answers) reaches a terminal without characters that move its
//! cursor or reverse the text; a result that could not be written is an error, unless its reader has seen enough.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// The most characters of one line on standard error: a value may be as long as the system lets arguments be.
const LINE_MAX: usize = 1_000;

/// Whether a line for standard error could not be written.
static LINE_LOST: AtomicBool = AtomicBool::new(false);

/// Whether a terminal would act on a character instead of showing it, or show nothing: control characters, ends of
/// lines, marks that change the direction of text, and zero-width characters, by which two texts that look alike differ.
/// Joiners are text, because emoji and some scripts need them.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// A text with its control characters written out, as in `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) { printable.extend(c.escape_unicode()) } else { printable.push(c) }
    }
    printable
}

/// A text of at most `max` characters; the end of a longer one is left out.
#[must_use]
pub fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Prints a line, or a table of lines, on standard output. A reader that closed it, as `head` does, has seen enough.
///
/// # Errors
/// It cannot be written, for instance because the disk is full.
pub fn print(text: &impl Display) -> io::Result<()> {
    print_to(&mut io::stdout().lock(), text)
}

fn print_to(out: &mut impl Write, text: &impl Display) -> io::Result<()> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Prints a result for programs on standard output.
///
/// # Errors
/// Those of [`print()`].
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    // JSON leaves most control characters as they are. Outside its strings there are none but line ends.
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) && c != '\n' {
            let _ = write!(printable, "\\u{:04x}", u32::from(c));
        } else {
            printable.push(c);
        }
    }
    print(&printable)
}

/// Prints what went wrong, as one line on standard error.
pub fn error(error: &impl Display) {
    let line = error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ");
    note(&format!("error: {}", shortened(&printable(&line), LINE_MAX)));
}

/// Prints a line on standard error: something worth knowing while the work goes on. If it cannot be written, only the
/// exit code can still say so: see [`is_complete`].
pub fn note(text: &impl Display) {
    if let Err(error) = writeln!(io::stderr(), "{text}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LINE_LOST.store(true, Ordering::Relaxed);
    }
}

/// Whether every line for standard error was written, unless its reader had seen enough.
#[must_use]
pub fn is_complete() -> bool {
    !LINE_LOST.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses whatever is written.
    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_moves_a_cursor_is_written_out() {
        assert_eq!(printable("a\u{1b}[31mred\r\n\u{9b}2J\u{202e}b"), "a\\u{1b}[31mred\\u{d}\\u{a}\\u{9b}2J\\u{202e}b");
        assert_eq!(printable("noon\u{200b}\u{feff}"), "noon\\u{200b}\\u{feff}");
        assert_eq!(printable("정오의 '쿠폰' ❤️ 👩‍💻 \\o/"), "정오의 '쿠폰' ❤️ 👩‍💻 \\o/");
    }

    #[test]
    fn a_text_is_shortened_between_characters() {
        assert_eq!(shortened("쿠폰쿠폰", 3), "쿠폰쿠…");
        assert_eq!(shortened("쿠폰", 2), "쿠폰");
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_closed_pipe_is_none() {
        assert!(print_to(&mut Refusing(io::ErrorKind::StorageFull), &"result").is_err());
        assert!(print_to(&mut Refusing(io::ErrorKind::BrokenPipe), &"result").is_ok());
    }
}
