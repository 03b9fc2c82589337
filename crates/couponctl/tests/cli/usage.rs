//! The command line. Goal: every line is either carried out or refused with the wrong word named, and no password
//! leaks. Method: wrong lines, each option with odd values, and the program's own help.

use coupon_testkit::program;
use coupon_testkit::{options, run, secrets};
use couponctl::Couponctl;

use crate::{PROGRAM, ctl};

#[tokio::test]
async fn wrong_usage_is_reported_with_exit_code_2() {
    run(async |space| {
        for (line, words) in [
            ("campaign create", &["--coupons"][..]),
            ("campaign create --id 0 --coupons=-1", &["--id", "--coupons"]),
            (
                "campaign create --coupons 1 --opens-at noon",
                &["--opens-at", ": must be a day that exists", "2030-01-01T12:00:00Z"],
            ),
            (
                "campaign create --coupons 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                &["--closes-at"],
            ),
            (
                "setup --id 1 --coupons 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                &["--closes-at"],
            ),
            (
                "campaign update --id 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                &["--closes-at"],
            ),
            ("campaign create --coupons 1 --opens-at 2030-01-01T00:00:00.0005Z", &["--opens-at", "three digits"]),
            ("campaign create --coupons 1 --opens-at 0000-01-01T00:00:00Z", &["--opens-at", "1000 to 9999"]),
            ("campaign create --coupons 1 --closes-at 9999-12-31T23:59:59-23:59", &["--closes-at"]),
            ("campaign create --id 9007199254740992 --coupons 1", &["--id", "9007199254740991"]),
            ("campaign add-coupons --id 1 --key more --coupons 0", &["--coupons"]),
            ("campaign add-coupons --id 1 --coupons 5", &["--key"]),
            ("campaign add-coupons --id 1 --key more", &["--coupons"]),
            ("campaign add-coupons --id 1", &["--key", "--total"]),
            ("campaign add-coupons --id 1 --key more --coupons 5 --total 5", &["--total"]),
            ("campaign add-coupons --id 1 --coupons 5 --total 5", &["--total"]),
            ("campaign update --id 1", &["--name", "--no-closes-at"]),
            ("campaign update --id 1 --opens-at 2030-01-02T00:00:00Z --no-opens-at", &["--no-opens-at"]),
            ("campaign show --id", &["--id"]),
            ("campaign", &["create", "history"]),
            ("", &["campaign", "audit"]),
            (
                "campaign list --namespace=x",
                &["; it goes before the command: couponctl --namespace <NAME> campaign list"],
            ),
            ("--mysql-url=http://nowhere migrate", &["COUPON_MYSQL_URL"]),
            ("mend", &["mend"]),
        ] {
            let ran = ctl(&space, line).await;
            assert_eq!(ran.code, Some(2), "{line}: {ran:?}");
            assert!(ran.stderr.lines().all(|line| line.starts_with("error: ")), "{ran:?}");
            assert!(words.iter().all(|word| ran.stderr.contains(word)), "{line}: {ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_command_shows_an_example() {
    for line in [
        "--help",
        "migrate --help",
        "campaign create --help",
        "campaign add-coupons --help",
        "campaign update --help",
        "campaign pause --help",
        "campaign resume --help",
        "campaign close --help",
        "campaign history --help",
        "campaign show --help",
        "campaign list --help",
        "audit --help",
        "doctor --help",
        "reset --help",
    ] {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let help = program::run(PROGRAM, &arguments, &[]).await;
        assert_eq!(help.code, Some(0), "{line}: {help:?}");
        assert!(help.stdout.contains("Example:\n  couponctl "), "{line}: {help:?}");
    }
    let help = program::run(PROGRAM, &[String::from("--help")], &[]).await;
    for variable in ["COUPON_MYSQL_URL", "COUPON_REDIS_URL", "COUPON_AMQP_URL", "COUPON_NAMESPACE"] {
        assert!(program::names_variable(&help, variable), "{variable}: {help:?}");
    }
}

#[test]
fn every_option_is_taken_or_named() {
    options::every_option_is_taken_or_named::<Couponctl>(Couponctl::check);
}

#[tokio::test]
async fn odd_variables_are_named() {
    options::odd_variables_are_named::<Couponctl>(PROGRAM, &["campaign", "list"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_its_secrets() {
    let lines = ["migrate", "campaign list", "audit", "doctor", "reset", "--help", "campaign create"];
    run(async |space| secrets::a_command_keeps_its_secrets::<Couponctl>(PROGRAM, &space, &lines).await).await;
}

#[tokio::test]
async fn an_address_is_read_from_the_file_that_a_variable_names() {
    run(async |space| {
        let file = std::env::temp_dir().join(format!("{}-address", space.name()));
        let mut environment = space.environment();
        let mysql = environment.iter().position(|(name, _)| *name == "COUPON_MYSQL_URL").unwrap();
        let (_, address) = environment.remove(mysql);
        std::fs::write(&file, format!("{address}\n")).unwrap();
        environment.push(("COUPON_MYSQL_URL_FILE", file.display().to_string()));
        let list = ["campaign", "list"].map(str::to_owned);

        let read = program::run(PROGRAM, &list, &environment).await;
        std::fs::write(&file, "mysql://coupon:SECRET@host:port/coupon").unwrap();
        let wrong = program::run(PROGRAM, &list, &environment).await;
        std::fs::remove_file(&file).unwrap();
        let missing = program::run(PROGRAM, &list, &environment).await;

        assert_eq!(read.code, Some(0), "{read:?}");
        assert_eq!((wrong.code, wrong.stderr.contains("SECRET")), (Some(2), false), "{wrong:?}");
        assert!(wrong.stderr.contains("--mysql-url (COUPON_MYSQL_URL_FILE)"), "{wrong:?}");
        assert_eq!((missing.code, missing.stderr.lines().count()), (Some(2), 1), "{missing:?}");
        assert!(missing.stderr.contains("COUPON_MYSQL_URL_FILE = '"), "{missing:?}");
    })
    .await;
}
