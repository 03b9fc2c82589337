//! The files that TLS settings name. Goal: one that cannot be used is reported before a program connects to anything.

use coupon_testkit::TestAuthority;
use coupon_testkit::program::run;

use crate::programs;

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let authority = TestAuthority::new();
    let (own, other) = (authority.issue(&["couponctl"]), authority.issue(&["couponctl"]));
    let (certificate, key, other_key) = (own.certificate_file(), own.key_file(), other.key_file());
    let missing = "/no/such/file";
    for (settings, line) in [
        (&[("TLS_CA", missing)][..], "--tls-ca (TLS_CA) = '/no/such/file': there is no such file; it takes "),
        (&[("TLS_CA", &key)], "it holds no certificate in PEM; it takes "),
        (&[("TLS_CLIENT_CERT", &key)], "it holds no certificate in PEM; it takes "),
        (&[("TLS_CLIENT_KEY", &certificate)], "it holds no unencrypted private key in PEM; it takes "),
        (&[("TLS_CLIENT_CERT", &certificate)], "(TLS_CLIENT_CERT) is given without --tls-client-key (TLS_CLIENT_KEY)"),
        (&[("TLS_CLIENT_KEY", &key)], "(TLS_CLIENT_KEY) is given without --tls-client-cert (TLS_CLIENT_CERT)"),
        (
            &[("TLS_CLIENT_CERT", &certificate), ("TLS_CLIENT_KEY", &other_key)],
            "--tls-client-key (TLS_CLIENT_KEY): it is the key of another certificate",
        ),
    ] {
        for (program, arguments) in
            [("couponctl", &["audit"][..]), ("coupon-bench", &["ceilings"]), ("queue-consumer", &[])]
        {
            let environment: Vec<(&str, String)> =
                settings.iter().map(|(name, value)| (*name, String::from(*value))).collect();
            let arguments: Vec<String> = arguments.iter().map(|argument| String::from(*argument)).collect();

            let ran = run(&programs::path(program), &arguments, &environment).await;

            assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), 1), "{program}: {ran:?}");
            assert!(ran.stderr.starts_with("error: --tls-") && ran.stderr.contains(line), "{program}: {ran:?}");
        }
    }
}
