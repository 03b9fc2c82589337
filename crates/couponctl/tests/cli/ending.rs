//! How a command that cannot go on ends. Goal: it ends in time, with the cause in one line and an exit code to match.
//! Method: servers that are away or silent, and signals to a waiting command.

use coupon_testkit::program;
use coupon_testkit::{Proxy, eventually, run};
use couponctl::Couponctl;
use lapin::BasicProperties;

use crate::{PROGRAM, ctl, fails};

#[tokio::test]
async fn a_server_that_cannot_be_used_is_named_with_the_cause() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let waiting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    run(async |space| {
        let right = &space.servers().mysql.mysql_url;
        // MySQL picks an arbitrary plugin to authenticate an unknown user, so the driver's error differs between users.
        let [stranger, other, third] =
            ["nobody-of-this-name", "cupon", "admin"].map(|name| right.with_user(name, "wrong"));
        let check_user = &["MySQL: ", "; check the user and the password in COUPON_MYSQL_URL"][..];
        for (url, words) in [
            (format!("mysql://me:wrong@{silent}/coupon"), &["Connection refused", "; see that MySQL runs there"][..]),
            (
                format!("mysql://me:wrong@{}/coupon", waiting.local_addr().unwrap()),
                &["took longer than 1s", "does not answer as MySQL"],
            ),
            (String::from("mysql://me:wrong@nowhere.invalid/coupon"), &["lookup"]),
            (stranger.reveal().to_owned(), check_user),
            (other.reveal().to_owned(), check_user),
            (third.reveal().to_owned(), check_user),
        ] {
            for line in ["campaign list", "migrate"] {
                let ran = ctl(&space, &format!("--mysql-deadline=1s --mysql-url={url} {line}")).await;

                fails(&ran, 1, words);
                assert!(!ran.stderr.contains("services up"), "that starts MySQL at another address: {ran:?}");
                assert!(!ran.stderr.contains("wrong@"), "{ran:?}");
            }
        }
        let waiting = format!("--mysql-url=mysql://me:wrong@{}/coupon", waiting.local_addr().unwrap());
        for line in ["campaign list", "migrate"] {
            // This is shorter than the deadline of work in progress.
            fails(&ctl(&space, &format!("{waiting} {line}")).await, 1, &["took longer than 3s"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_that_does_not_reach_redis_leaves_the_queues_as_they_are() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    run(async |space| {
        space.queues.declare().await;
        space.queues.publish_dead_letter(BasicProperties::default(), b"poison").await;

        let ran = ctl(&space, &format!("--redis-url=redis://{closed}/0 reset --yes")).await;

        let words =
            [&format!("nothing was deleted: redis://{closed}/0: Redis: "), "; see that Redis runs and that COUPON_"];
        fails(&ran, 1, &words);
        assert_eq!(space.queues.dead_letters().await, 1);
        let ran = ctl(&space, &format!("--amqp-url=amqp://{closed}/%2f dead list")).await;
        fails(&ran, 1, &["RabbitMQ: ", "; see that RabbitMQ runs and that COUPON_AMQP_URL leads to it"]);
    })
    .await;
}

/// An audit may take as long as the server needs, so only silence ends it.
#[tokio::test]
async fn an_audit_ends_when_the_server_falls_silent() {
    run(async |space| {
        for (silent, words) in [
            ("the server", "took longer than 1s"),
            ("the connection", "MySQL is away"),
            ("the connection, which the server has ended", "the connection to MySQL is away"),
        ] {
            let proxy = Proxy::start(&space.servers().mysql.mysql_url).await;
            let line = format!("--mysql-url={} --mysql-deadline=1s audit --mysql-only", proxy.url());
            let locked = space.lock_tables().await;
            let freeze = async {
                let begun = async || !space.running("SELECT campaign.id, campaign.coupons, COUNT").await.is_empty();
                eventually("it waits for MySQL", begun).await;
                if silent == "the server" {
                    proxy.freeze();
                } else {
                    proxy.lead_to(&space.servers().mysql.mysql_url);
                    proxy.freeze_those_before();
                }
                if words.starts_with("the connection") {
                    for id in space.running("SELECT campaign.id, campaign.coupons, COUNT").await {
                        space.sql(format!("KILL {id}")).await;
                    }
                }
                locked.disconnect().await.unwrap();
            };

            let (ran, ()) = tokio::join!(ctl(&space, &line), freeze);

            fails(&ran, 1, &[words]);
            assert_eq!(ran.stderr.contains("the connection to"), words.contains("the connection to"), "{ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn too_few_open_files_are_named() {
    run(async |space| program::too_few_open_files_are_named::<Couponctl>(PROGRAM, &space).await).await;
}

/// A command in a container is process 1, to which the kernel delivers only signals that it has a handler for.
#[tokio::test]
async fn a_command_that_is_process_1_ends_when_it_is_asked_to() {
    run(async |space| {
        for (id, signal, code) in [(90, "HUP", 129), (91, "INT", 130), (92, "TERM", 143)] {
            // The server goes on for a moment with what the command before has asked for.
            eventually("nothing waits", async || space.running("SELECT id, name").await.is_empty()).await;
            let locked = space.lock_tables().await;
            // On a busy machine it takes a while to see that the command waits; until then it must not give up by
            // itself.
            let line = format!("--mysql-deadline=1min campaign show --id {id}");
            let line: Vec<String> = line.split(' ').map(String::from).collect();
            let alone = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"].map(String::from);
            // The tests may run under nohup, and so would the command.
            let program = ["env", "--default-signal=HUP", PROGRAM].map(String::from);
            let arguments = [&alone[..], &program[..], &line[..]].concat();
            let environment = space.environment();
            let ending = async {
                eventually("it waits for MySQL", async || !space.running("SELECT id, name").await.is_empty()).await;
                let pid = pid_of(&line);
                let kill = format!("kill -{signal} {pid}");
                let killed = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
                assert!(killed.success(), "{kill}");
            };

            let (ran, ()) = tokio::join!(program::run("unshare", &arguments, &environment), ending);

            locked.disconnect().await.unwrap();
            fails(&ran, code, &[&format!("stopped by SIG{signal}")]);
        }
    })
    .await;
}

/// The id of this program's process with these arguments, in this machine's own pid namespace.
fn pid_of(arguments: &[String]) -> u32 {
    let is_it = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next() == Some(PROGRAM) && words.take(arguments.len()).eq(arguments.iter().map(String::as_str))
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_it).max().expect("a process")
}
