//! The patches that remove a guard, for `scripts/test-failures --without`. Goal: each still applies to the code that it
//! changes. Method: a dry run of `patch` on this checkout.

use std::path::Path;
use std::process::Command;

#[test]
fn each_patch_fits_the_code() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let patches: Vec<_> =
        std::fs::read_dir(crate_folder.join("guards")).unwrap().map(|one| one.unwrap().path()).collect();
    assert!(patches.len() >= 5, "{patches:?}");

    for path in patches {
        let mut patch = Command::new("patch");
        patch.args(["--dry-run", "--force", "--strip", "1", "--fuzz", "0", "--input"]).arg(&path);
        let ran = patch.current_dir(crate_folder.join("../..")).output().unwrap();

        assert!(ran.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&ran.stdout));
    }
}
