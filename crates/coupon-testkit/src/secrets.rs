//! Checks that a program keeps its secrets. Goal: nothing it writes contains a password or a token, whatever goes wrong
//! and however much it logs. Method: each option that takes an address is given one with a password, of a server that
//! is up, away, of another kind, or without that user or database; all output is searched for the passwords in every
//! form that a driver may print.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::CommandFactory;
use coupon_core::service::LISTENING;
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use crate::running::command;
use crate::space::TestSpace;
use crate::wait::{DEADLINE, eventually};

/// A password that has to be encoded, and does not occur in other output.
const PASSWORD: &str = "Tr0ub4dor/&3?";

/// The token in the headers for a collector.
const TOKEN: &str = "t0ken-of-the-collector";

/// The user of that password.
const USER: &str = "nobody";

/// How many programs run at the same time.
const AT_ONCE: usize = 2;

/// Each log level, and one filter that includes the drivers that know passwords.
const FILTERS: [&str; 7] = [
    "off",
    "error",
    "warn",
    "info",
    "debug",
    "trace",
    "trace,lapin=trace,amq_protocol=trace,mysql_async=trace,redis=trace,reqwest=trace,hyper=trace,h2=trace,tonic=trace",
];

/// Checks that a service keeps its secrets in its log and in its health reports.
///
/// # Panics
/// The check fails.
pub async fn a_service_keeps_its_secrets<T: CommandFactory>(program: &str, space: &TestSpace) {
    let mut lines: Vec<Line> =
        troubles::<T>(space).await.iter().map(|own| Line::of::<T>(space, Some(own), "trace")).collect();
    let away = lines.iter().find(|line| line.flag == "mysql-url").expect("an address of MySQL").arguments.clone();
    lines.extend(FILTERS.map(|filter| Line { arguments: away.clone(), filter, ..Line::of::<T>(space, None, filter) }));
    lines.extend(FILTERS.iter().skip(3).map(|filter| Line::of::<T>(space, None, filter)));
    let mut help = Line::of::<T>(space, None, "trace");
    help.arguments.push(String::from("--help"));
    lines.push(help);
    all_keep(program, &lines).await;
}

/// Checks that a command keeps its secrets with each of these command lines.
///
/// # Panics
/// The check fails.
pub async fn a_command_keeps_its_secrets<T: CommandFactory>(program: &str, space: &TestSpace, lines: &[&str]) {
    let mut all = Vec::new();
    for own in troubles::<T>(space).await {
        for words in lines {
            let mut line = Line::of::<T>(space, Some(&own), "trace");
            line.arguments.extend(words.split(' ').map(str::to_owned));
            all.push(line);
        }
    }
    all_keep(program, &all).await;
}

/// One run of a program.
struct Line {
    flag: &'static str,
    arguments: Vec<String>,
    filter: &'static str,
    /// The words in its output after which it is stopped; it may end by itself before.
    until: &'static str,
}

/// An option, and an address to pass to it.
type Own = (&'static str, String);

impl Line {
    fn of<T: CommandFactory>(space: &TestSpace, own: Option<&Own>, filter: &'static str) -> Self {
        let deadlines = [("mysql-deadline", "1s"), ("redis-deadline", "1s"), ("amqp-deadline", "1s")];
        let command = T::command();
        let is_known = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
        let mut flags: Vec<(&str, &str)> = deadlines.into_iter().filter(|(flag, _)| is_known(flag)).collect();
        if let Some((flag, address)) = own {
            flags.push((flag, address));
        }
        let until = match own {
            None => LISTENING,
            Some(("amqp-management-url", _)) => "are not checked",
            Some(_) => "cannot do its work",
        };
        Self { flag: own.map_or("", |(flag, _)| flag), arguments: space.arguments::<T>(&flags), filter, until }
    }

    /// Runs the program and returns everything it writes until it ends or is stopped.
    async fn written_by(&self, program: &str) -> String {
        let environment = [
            ("LOG", self.filter.to_owned()),
            ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{TOKEN}")),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", String::from("http://127.0.0.1:9")),
        ];
        let mut process =
            command(program, &self.arguments, &environment).stdin(Stdio::null()).spawn().expect("a program");
        let written = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            tokio::spawn(keep(process.stdout.take().expect("standard output"), Arc::clone(&written))),
            tokio::spawn(keep(process.stderr.take().expect("standard error"), Arc::clone(&written))),
        ];
        let text = || String::from_utf8_lossy(&written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        eventually("it has come to the point, or to its end", async || {
            text().contains(self.until) || process.try_wait().expect("a program").is_some()
        })
        .await;
        if let Some(pid) = process.id() {
            let _ = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status();
        }
        tokio::time::timeout(DEADLINE, process.wait()).await.expect("it does not end").expect("its end");
        for reader in readers {
            reader.await.expect("its output");
        }
        text()
    }
}

async fn keep(mut from: impl AsyncReadExt + Unpin, written: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
}

/// Addresses with a password, for each option that takes an address.
async fn troubles<T: CommandFactory>(space: &TestSpace) -> Vec<Own> {
    let of_another_kind = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let another = of_another_kind.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = of_another_kind.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
        }
    });
    let right = space.arguments::<T>(&[]);
    let command = T::command();
    let flags = command.get_arguments().filter(|argument| argument.is_hide_env_values_set());
    let mut troubles = Vec::new();
    for flag in flags.filter_map(clap::Arg::get_long) {
        let flag: &'static str = flag.to_owned().leak();
        // An address that the tests do not set is an HTTP address.
        let given = right.iter().find_map(|word| word.strip_prefix(&format!("--{flag}=")));
        let address = given.unwrap_or("https://127.0.0.1/jwks.json");
        let mut url = Url::parse(address).expect("an address");
        url.set_username(USER).expect("a user");
        url.set_password(Some(PASSWORD)).expect("a password");
        let with = |change: &dyn Fn(&mut Url)| {
            let mut url = url.clone();
            change(&mut url);
            url.to_string()
        };
        let addresses = [
            with(&|_| {}),
            with(&|url| url.set_port(Some(9)).expect("a port")),
            with(&|url| url.set_port(Some(another)).expect("a port")),
            with(&|url| url.set_host(Some("nowhere.invalid")).expect("a host")),
            with(&|url| url.set_path("/97")),
            with(&|url| url.set_query(Some(&format!("{PASSWORD}=1")))),
            address.replacen("://", &format!("://{USER}:{PASSWORD}@"), 1),
        ];
        // The real user may trigger more detailed messages.
        let elsewhere = address.replace("/coupon_test", "/97coupon_test");
        let elsewhere = (elsewhere != *address).then_some(elsewhere);
        troubles.extend(addresses.into_iter().chain(elsewhere).map(|address| (flag, address)));
    }
    troubles
}

/// Runs a program with each command line, and searches its output for secrets.
async fn all_keep(program: &str, lines: &[Line]) {
    let secrets: Vec<(String, String)> =
        lines.iter().flat_map(|line| &line.arguments).filter_map(|word| login(word)).collect();
    let secrets = [secrets, vec![(USER.to_owned(), PASSWORD.to_owned()), (String::new(), TOKEN.to_owned())]].concat();
    let mut forms: Vec<String> = secrets.iter().flat_map(|(user, secret)| forms(user, secret)).collect();
    forms.sort();
    forms.dedup();
    let written = stream::iter(lines).map(|line| async move { (line, line.written_by(program).await) });
    let written: Vec<(&Line, String)> = written.buffer_unordered(AT_ONCE).collect().await;
    for (line, text) in written {
        let arguments = line.arguments.join(" ");
        assert!(line.filter == "off" || !text.is_empty(), "{arguments}: it said nothing");
        assert!(!text.contains("panicked"), "{arguments}: {text}");
        for form in &forms {
            let leak = text.lines().find(|line| line.contains(form));
            assert_eq!(leak, None, "{form} is in what it wrote at {} on {arguments}", line.filter);
        }
    }
}

/// The user and password in an argument. A well-known password, equal to the user name, is not a secret.
fn login(argument: &str) -> Option<(String, String)> {
    let (_, address) = argument.split_once('=')?;
    let url = Url::parse(address).ok()?;
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (decoded(url.username()), decoded(url.password()?));
    (user != password).then_some((user, password))
}

/// The forms in which a secret may be printed: as it is, encoded for an address, as bytes, or as it is sent.
fn forms(user: &str, secret: &str) -> Vec<String> {
    let encoded = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    let bytes = format!("{:?}", secret.as_bytes());
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    vec![
        secret.to_owned(),
        encoded.to_lowercase(),
        encoded,
        bytes.trim_matches(['[', ']']).to_owned(),
        hex.to_uppercase(),
        hex,
        BASE64_STANDARD.encode(secret),
        BASE64_STANDARD.encode(format!("{user}:{secret}")),
        BASE64_STANDARD.encode(format!("\0{user}\0{secret}")),
    ]
}
