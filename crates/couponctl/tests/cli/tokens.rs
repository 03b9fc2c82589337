//! Keys and tokens to try a service out. Goal: they work as created, and only its owner can read a key. Method: the
//! files and tokens that the program makes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coupon_testkit::{program, run};
use serde_json::Value;

use crate::{PROGRAM, ctl, ctl_json, fails};

/// The claims in a token.
fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn keys_are_never_overwritten_and_sign_tokens() {
    run(async |space| {
        use std::os::unix::fs::PermissionsExt;

        let folder = std::env::temp_dir().join(space.name());
        let (folder, private) = (folder.to_str().unwrap(), folder.join("private.pem"));
        let keys = format!("token keys --out {folder}");
        let issue = format!("--key {} --account 42 --issuer me --audience coupons", private.to_str().unwrap());

        let made = ctl_json(&space, &keys).await;
        let again = ctl(&space, &keys).await;
        let token = ctl(&space, &format!("token issue {issue}")).await;
        let as_json = ctl_json(&space, &format!("token issue {issue} --valid 1min")).await;

        assert_eq!(made["private_key"], format!("{folder}/private.pem"), "{made}");
        assert_eq!(made["public_keys"], format!("{folder}/jwks.json"), "{made}");
        fails(&again, 1, &["private.pem"]);
        std::fs::rename(&private, format!("{folder}/kept")).unwrap();
        fails(&ctl(&space, &keys).await, 1, &["jwks.json"]);
        assert!(!private.exists(), "a pair is written whole or not at all");
        std::fs::rename(format!("{folder}/kept"), &private).unwrap();
        assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600, "for nobody else");
        let public = std::fs::read_to_string(format!("{folder}/jwks.json")).unwrap();
        assert!(!public.contains("\"d\""), "{public}");
        assert_eq!((token.code, token.stdout.trim().split('.').count()), (Some(0), 3), "{token:?}");
        assert_eq!(as_json["token"].as_str().unwrap().split('.').count(), 3);
        let listed = ctl(&space, &format!("token issue {issue} --campaign 7 --campaign 9")).await;
        assert_eq!(claims(&listed.stdout)["campaigns"], serde_json::json!([7, 9]));
        assert!(claims(&token.stdout)["campaigns"].is_null(), "{token:?}");
        for no_key in [&format!("{folder}/jwks.json"), folder, "/dev/zero", "/no/such/file"] {
            let issue = issue.replace(private.to_str().unwrap(), no_key);
            fails(&ctl(&space, &format!("token issue {issue}")).await, 2, &["--key", no_key]);
        }
        for (given, empty) in [("--issuer me", "--issuer="), ("--audience coupons", "--audience=")] {
            let issue = issue.replace(given, empty);
            fails(&ctl(&space, &format!("token issue {issue}")).await, 2, &[empty.trim_end_matches('=')]);
        }
        let long = issue.replace("coupons", &"a".repeat(9_000));
        fails(&ctl(&space, &format!("token issue {long}")).await, 1, &["would be refused", "8192"]);
        fails(&ctl(&space, "token issue --key none --account 0 --issuer me --audience a").await, 2, &["--account"]);
        std::fs::remove_dir_all(folder).unwrap();
    })
    .await;
}

#[tokio::test]
async fn keys_that_a_full_disk_cuts_off_are_not_kept() {
    run(async |space| {
        let folder = std::env::temp_dir().join(space.name());
        // No file may grow beyond 0 bytes: creating one succeeds and writing to it fails, as on a full disk.
        let limited = format!("trap '' XFSZ; ulimit -f 0; exec '{PROGRAM}' token keys --out '{}'", folder.display());

        let made = program::run("/bin/sh", &[String::from("-c"), limited], &[]).await;

        fails(&made, 1, &["private.pem"]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{made:?}");
        std::fs::remove_dir(folder).unwrap();
    })
    .await;
}
