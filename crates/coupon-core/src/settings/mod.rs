//! Settings: one typed struct for each program, from flags and environment, read once before anything is bound.
//!
//! Each program derives [`clap::Parser`] and flattens the groups below. [`parse`] names *every* wrong setting at once,
//! because fixing a deployment one restart at a time is slow. The defaults connect to the servers of
//! `scripts/services up` and of `docker compose up -d mysql redis rabbitmq`.

mod address;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Subcommand, ValueEnum};

pub use address::{ManagementUrl, ServerUrl};

use crate::terminal;

/// Characters of a wrong value that are shown.
const VALUE_SHOWN: usize = 80;

/// A time that something may take, such as `250ms`, `5s` or `1min`: enough for a round trip to a server.
///
/// # Errors
/// A text that is no duration, less than 100 milliseconds, or more than a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(100), Duration::from_hours(24))
}

/// How long a connection may live: long enough to be of use.
fn connection_age(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(1), Duration::from_hours(24))
}

/// A duration from `min` to `max`.
///
/// # Errors
/// A text that is no duration, or one out of these bounds.
pub fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 250ms or 5s"))?;
    if duration < min {
        return Err(format!("must be at least {}", humantime::format_duration(min)));
    }
    if duration > max {
        return Err(format!("must be at most {}", humantime::format_duration(max)));
    }
    Ok(duration)
}

/// MySQL: the truth.
#[derive(Args, Clone, Debug)]
pub struct MysqlSettings {
    /// Address of MySQL (8.0 or later, or MariaDB 10.6 or later), with the database as its path.
    #[arg(
        long,
        env = "COUPON_MYSQL_URL",
        value_name = "URL",
        value_parser = address::mysql_url,
        default_value = "mysql://coupon:coupon@127.0.0.1:13306/coupon",
        hide_env_values = true
    )]
    pub mysql_url: ServerUrl,

    /// Connections this process keeps to MySQL. More than a few dozen makes claims slower, not faster.
    #[arg(long, env = "MYSQL_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512), default_value_t = 16)]
    pub mysql_connections: u16,

    /// Longest life of a connection to MySQL, and a fifth. A new one goes to the server that the address names then.
    #[arg(long, env = "MYSQL_CONNECTION_AGE", value_name = "TIME", value_parser = connection_age, default_value = "5min")]
    pub mysql_connection_age: Duration,

    /// Longest time one piece of work may take in MySQL, waiting for a connection included.
    #[arg(long, env = "MYSQL_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub mysql_deadline: Duration,
}

/// Redis: ids that wait to be claimed and outcomes that wait to be read. It may lose everything.
#[derive(Args, Clone, Debug)]
pub struct RedisSettings {
    /// Address of Redis (7 or later), with the number of the database as its path.
    #[arg(
        long,
        env = "COUPON_REDIS_URL",
        value_name = "URL",
        value_parser = address::redis_url,
        default_value = "redis://127.0.0.1:16379/0",
        hide_env_values = true
    )]
    pub redis_url: ServerUrl,

    /// Longest life of a connection to Redis, and a fifth. A new one goes to the server that the address names then.
    #[arg(long, env = "REDIS_CONNECTION_AGE", value_name = "TIME", value_parser = connection_age, default_value = "5min")]
    pub redis_connection_age: Duration,

    /// Longest time one Redis command or pipeline may take.
    #[arg(long, env = "REDIS_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub redis_deadline: Duration,
}

/// RabbitMQ: accepted claims on their way.
#[derive(Args, Clone, Debug)]
pub struct AmqpSettings {
    /// Address of RabbitMQ (3.10 or later), with the virtual host as its path (%2f is the default one).
    #[arg(
        long,
        env = "COUPON_AMQP_URL",
        value_name = "URL",
        value_parser = address::amqp_url,
        default_value = "amqp://guest:guest@127.0.0.1:15673/%2f",
        hide_env_values = true
    )]
    pub amqp_url: ServerUrl,

    /// Longest life of a connection to RabbitMQ, and a fifth. A new one goes to the server that the address names then.
    #[arg(long, env = "AMQP_CONNECTION_AGE", value_name = "TIME", value_parser = connection_age, default_value = "5min")]
    pub amqp_connection_age: Duration,
    /// Address of RabbitMQ's HTTP API, which is asked for policies that would lose accepted claims; empty = not asked.
    /// Without a name and password in it, those of the other address are used.
    #[arg(
        long,
        env = "COUPON_AMQP_MANAGEMENT_URL",
        value_name = "URL",
        value_parser = address::management_url,
        default_value = "http://127.0.0.1:15675",
        hide_env_values = true
    )]
    pub amqp_management_url: ManagementUrl,

    /// Longest time the broker may take to answer, a publisher confirm included.
    #[arg(long, env = "AMQP_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub amqp_deadline: Duration,

    /// Messages that may wait in the queue; further claims are refused with 503. The same for all programs of an
    /// installation, as a queue keeps what it was made with.
    #[arg(long, env = "QUEUE_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000), default_value_t = 10_000_000)]
    pub queue_max: u32,
}

/// Keeps several installations apart on the same servers.
#[derive(Args, Clone, Debug)]
pub struct NamespaceSettings {
    /// Prefix of every Redis key and RabbitMQ queue: letters, digits, `-` and `_`, at most 64.
    #[arg(long, env = "COUPON_NAMESPACE", value_name = "NAME", default_value = "coupon")]
    pub namespace: Namespace,
}

/// A checked prefix for Redis keys and RabbitMQ queues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace(String);

impl FromStr for Namespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            return Err(String::from("must be 1 to 64 letters, digits, - or _"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every service logs, how long it may take to stop, and how it is asked for its health.
#[derive(Args, Clone, Debug)]
pub struct ProcessSettings {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module as in `info,lapin=warn`.
    // lapin's own errors come back to us and are told in our words.
    #[arg(long, env = "LOG", value_name = "FILTER", value_parser = log_filter, default_value = "info,actix_server=warn,lapin=off")]
    pub log: String,

    /// Form of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// Longest time that work in hand may take to finish after SIGTERM or SIGINT.
    #[arg(long, env = "DRAIN_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "20s")]
    pub drain_deadline: Duration,

    /// Something else than to run.
    #[command(subcommand)]
    pub command: Option<ProcessCommand>,
}

/// What a service does when it is not to run.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ProcessCommand {
    /// Ask the service at --admin-listen whether it is ready; exit with 0 if it is, else with 1.
    CheckHealth,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line, for a log collector.
    Json,
}

fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Reads a program's settings from its arguments and environment, or ends the program: with status 2 and a line for
/// *each* wrong setting, or as `--help` and `--version` ask.
#[must_use]
pub fn parse<T: CommandFactory + FromArgMatches>() -> T {
    match try_parse_from(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(settings) => settings,
        Err(Refusal::Help(help)) => match terminal::print(&help.to_string().trim_end()) {
            Ok(()) => std::process::exit(0),
            Err(error) => {
                terminal::error(&error);
                std::process::exit(1)
            }
        },
        Err(Refusal::Wrong(lines)) => refuse(&lines),
    }
}

/// Ends the program as wrong usage does: with status 2 and a line for each thing that is wrong.
pub fn refuse(lines: &[String]) -> ! {
    lines.iter().for_each(terminal::error);
    std::process::exit(2)
}

/// Why settings were not taken.
#[derive(Debug)]
pub enum Refusal {
    /// Help or the version was asked for.
    Help(clap::Error),
    /// A line for each thing that is wrong.
    Wrong(Vec<String>),
}

/// As [`parse`], from the given arguments; the first is the program's name.
///
/// # Errors
/// All that is wrong with the values, or the first thing that is wrong with the command line itself.
pub fn try_parse_from<T: CommandFactory + FromArgMatches>(arguments: &[OsString]) -> Result<T, Refusal> {
    let mut command = say_what_is_missing(T::command());
    // An argument can be shown, and so found by name, only once it is built.
    command.build();
    let mut wrong = Vec::new();
    let mut freed = HashSet::new();
    // clap stops at the first wrong value. Noting it and letting that argument take anything finds the next one. Each
    // round frees an argument that was not free, or is the last: so the rounds end.
    loop {
        let error = match command.clone().try_get_matches_from(arguments) {
            Ok(_) if !wrong.is_empty() => return Err(Refusal::Wrong(wrong)),
            Ok(matches) => match T::from_arg_matches(&matches) {
                Ok(settings) => return Ok(settings),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match wrong_value(&command, arguments, &error) {
            Some((id, line)) if freed.insert(id.clone()) => {
                wrong.push(line);
                command = take_anything(command, &id);
            }
            _ if !error.use_stderr() => return Err(Refusal::Help(error)),
            _ if error.kind() == ErrorKind::InvalidUtf8 => {
                wrong.extend(not_utf8(&command, arguments));
                return Err(Refusal::Wrong(wrong));
            }
            _ => {
                wrong.push(in_one_line(&error));
                return Err(Refusal::Wrong(wrong));
            }
        }
    }
}

/// A command without its subcommand is told which there are, in a line, not shown its help.
fn say_what_is_missing(command: clap::Command) -> clap::Command {
    command.arg_required_else_help(false).mut_subcommands(say_what_is_missing)
}

/// The argument that a clap error blames, and a line that names it, its variable and what is wrong with its value.
fn wrong_value(command: &clap::Command, arguments: &[OsString], error: &clap::Error) -> Option<(clap::Id, String)> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = find(command, text(ContextKind::InvalidArg)?)?;
    let value = text(ContextKind::InvalidValue).unwrap_or_default();

    let mut line = named(argument);
    if value.is_empty() {
        line += " has no value";
    } else if argument.is_hide_env_values_set() {
        // An address holds a password.
        line += " has a value that is refused";
    } else {
        let _ = write!(line, " = '{}'", terminal::shortened(value, VALUE_SHOWN));
    }
    if let Some(reason) = std::error::Error::source(error) {
        let _ = write!(line, ": {reason}");
    }
    line += &right_value(argument, asked_for(command, arguments), error);
    Some((argument.get_id().clone(), line))
}

/// The command, or the one below it, that these arguments ask for.
fn asked_for<'a>(command: &'a clap::Command, arguments: &[OsString]) -> &'a clap::Command {
    let below = |command: &'a clap::Command, argument: &OsString| command.find_subcommand(argument).unwrap_or(command);
    arguments.iter().skip(1).fold(command, below)
}

/// What an argument would take: one of its values, its default, or what it has in the example of its command.
fn right_value(argument: &clap::Arg, command: &clap::Command, error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        return format!(": must be one of {}", valid.join(", "));
    }
    match argument.get_default_values() {
        [] => {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let flag = format!(" --{} ", argument.get_long().unwrap_or_default());
            match help.lines().find(|line| line.contains(&flag)) {
                Some(example) => format!("; an example is: {}", example.trim()),
                None => String::from("; --help shows an example"),
            }
        }
        defaults => {
            let defaults: Vec<_> = defaults.iter().map(|default| default.to_string_lossy()).collect();
            format!("; the default is {}", defaults.join(" "))
        }
    }
}

/// An argument's flag and variable.
fn named(argument: &clap::Arg) -> String {
    let flag = format!("--{}", argument.get_long().unwrap_or_else(|| argument.get_id().as_str()));
    match argument.get_env() {
        Some(variable) => format!("{flag} ({})", variable.to_string_lossy()),
        None => flag,
    }
}

/// The argument that clap writes as `name`, in a command or those below it.
fn find<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    command
        .get_arguments()
        .find(|argument| argument.to_string() == name)
        .or_else(|| command.get_subcommands().find_map(|command| find(command, name)))
}

fn take_anything(command: clap::Command, id: &clap::Id) -> clap::Command {
    let free = |argument: clap::Arg| argument.value_parser(ValueParser::os_string()).num_args(0..=1);
    command
        .mut_args(|argument| if argument.get_id() == id { free(argument) } else { argument })
        .mut_subcommands(|below| take_anything(below, id))
}

/// A line for each argument and variable whose text is no text; clap does not tell which.
fn not_utf8(command: &clap::Command, arguments: &[OsString]) -> Vec<String> {
    let is_wrong = |value: &OsString| value.to_str().is_none();
    let arguments = arguments.iter().filter(|argument| is_wrong(argument));
    let mut lines: Vec<String> = arguments
        .map(|argument| {
            let text = argument.to_string_lossy();
            // What comes behind the name may be an address, with a password.
            format!(
                "'{}' is no UTF-8 text",
                text.split('=').next().map(|name| terminal::shortened(name, VALUE_SHOWN)).unwrap_or_default()
            )
        })
        .collect();
    #[expect(clippy::disallowed_methods, reason = "clap has read it for a setting, and cannot say which")]
    let in_environment = command
        .get_arguments()
        .filter(|argument| argument.get_env().and_then(std::env::var_os).is_some_and(|value| is_wrong(&value)));
    lines.extend(in_environment.map(|argument| format!("{} is no UTF-8 text", named(argument))));
    lines
}

/// clap's own words up to its hints on usage.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Settings {
        #[command(flatten)]
        mysql: MysqlSettings,
        #[command(flatten)]
        amqp: AmqpSettings,
        #[command(flatten)]
        process: ProcessSettings,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, Refusal> {
        try_parse_from(
            &std::iter::once("test").chain(arguments.iter().copied()).map(OsString::from).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn defaults_are_complete() {
        let settings = parse(&[]).unwrap();

        assert_eq!(settings.mysql.mysql_connections, 16);
        assert_eq!(settings.amqp.amqp_deadline, Duration::from_secs(5));
    }

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let refusal = parse(&[
            "--mysql-connections=0",
            "--mysql-deadline=soon",
            "--amqp-url=http://secret:word@host",
            "--log-format=xml",
        ])
        .unwrap_err();

        let Refusal::Wrong(lines) = refusal else { panic!("{refusal:?}") };
        assert_eq!(lines.len(), 4, "{lines:?}");
        let refusal = lines.join("\n");
        for name in
            ["--mysql-connections (MYSQL_CONNECTIONS) = '0'", "(MYSQL_DEADLINE)", "(COUPON_AMQP_URL)", "(LOG_FORMAT)"]
        {
            assert!(refusal.contains(name), "{name} is missing in:\n{refusal}");
        }
        assert!(!refusal.contains("word"), "a password leaked: {refusal}");
        assert!(refusal.contains("must be one of text, json"), "{refusal}");
    }

    #[test]
    fn an_option_without_its_value_is_named_beside_the_others() {
        for arguments in
            [&["--mysql-connections"][..], &["--mysql-deadline=soon", "--mysql-connections", "--log-format=xml"]]
        {
            let Refusal::Wrong(lines) = parse(arguments).unwrap_err() else { panic!("{arguments:?}") };

            assert_eq!(lines.len(), arguments.len(), "{lines:?}");
            let missing = "--mysql-connections (MYSQL_CONNECTIONS) has no value; the default is 16";
            assert!(lines.iter().any(|line| line == missing), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        use std::os::unix::ffi::OsStringExt;

        let arguments = [b"test".to_vec(), b"--log=\xff\xfe".to_vec()].map(OsString::from_vec);
        let Refusal::Wrong(lines) = try_parse_from::<Settings>(&arguments).unwrap_err() else { panic!() };

        assert_eq!(lines, ["'--log' is no UTF-8 text"]);
    }

    #[test]
    fn a_command_without_its_subcommand_is_told_which_there_are() {
        let Refusal::Wrong(lines) = try_parse_from::<Command>(&[OsString::from("test")]).unwrap_err() else { panic!() };

        assert!(matches!(&lines[..], [line] if line.contains("count")), "{lines:?}");
    }

    #[test]
    fn an_unknown_flag_is_named_in_one_line() {
        let Refusal::Wrong(lines) = parse(&["--no-such"]).unwrap_err() else { panic!() };

        assert_eq!(lines, ["unexpected argument '--no-such' found"]);
    }

    #[derive(Debug, Parser)]
    enum Command {
        #[command(after_help = "Example:\n  test count --number 3")]
        Count {
            #[arg(long)]
            number: u8,
            #[arg(long)]
            other: u8,
        },
    }

    #[test]
    fn values_below_a_subcommand_are_named_too() {
        let arguments = ["test", "count", "--number=many", "--other=300"].map(OsString::from);
        let Refusal::Wrong(lines) = try_parse_from::<Command>(&arguments).unwrap_err() else { panic!() };

        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("; an example is: test count --number 3"), "{lines:?}");
    }

    #[test]
    fn addresses_are_shown_without_their_password() {
        let settings = parse(&["--mysql-url=mysql://me:secret@db:3306/coupon"]).unwrap();

        assert_eq!(format!("{:?}", settings.mysql.mysql_url), "mysql://db:3306/coupon");
    }
}
