//! A file that a setting names, such as one with keys. Invariant: it is read whole, or refused at once: a device or a
//! pipe might never end.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// The most bytes of such a file; keys have a few thousand.
const BYTES_MAX: u64 = 256 * 1024;

/// Reads the text of a small file.
///
/// # Errors
/// Why it cannot be read.
pub fn small_file(path: &Path) -> Result<String, String> {
    let why = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => String::from("there is no such file"),
        io::ErrorKind::InvalidData => String::from("it holds no UTF-8 text"),
        kind => format!("it cannot be read: {kind}"),
    };
    // Checked first, because opening a pipe waits for its other end.
    if !fs::metadata(path).map_err(why)?.is_file() {
        return Err(String::from("it is not a file, but a folder, a device or a pipe"));
    }
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text)).map_err(why)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_small_file_is_refused_at_once() {
        let folder = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        fs::create_dir(&folder).unwrap();
        let file = |name: &str, size: usize| {
            let path = folder.join(name);
            fs::write(&path, "x".repeat(size)).unwrap();
            path
        };
        let (small, large, pipe) = (file("small", 262_144), file("large", 262_145), folder.join("pipe"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());

        for (path, words) in [
            (&*large, "more than 262144 bytes"),
            (&*pipe, "is not a file"),
            (&*folder, "is not a file"),
            (&*folder.join("none"), "no such file"),
            (Path::new("/dev/zero"), "is not a file"),
        ] {
            let error = small_file(path).unwrap_err();
            assert!(error.contains(words), "{}: {error}", path.display());
        }
        assert_eq!(small_file(&small).unwrap().len(), 262_144);
        fs::remove_dir_all(folder).unwrap();
    }
}
