//! Checks of every option of a program, as listed by the program itself. Goal: every value typed or set is either
//! accepted or named in an error, and new options are covered automatically. Method: odd values, tried by the thousands
//! in this process, and as variables of the real binary.

use std::ffi::OsString;
use std::sync::mpsc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use coupon_core::settings::{Refusal, try_parse_from};

use crate::program::run;

/// Values that most options refuse, and some that are barely valid.
const ODD: [&str; 24] = [
    "",
    " ",
    "-1",
    "+1",
    "0",
    "1e9",
    "NaN",
    "18446744073709551615",
    "18446744073709551616",
    "-99999999999999999999999999",
    "584942417355years",
    "letters",
    "쿠폰",
    "\u{1b}[31m\r\n\u{202e}",
    "://",
    "http://[::1",
    "https://user:s3cr3t@host:99999/%ff",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "0000-01-01T00:00:00+23:59",
    "+292277026-12-04T15:30:07Z",
    "2030-02-30T25:61:00Z",
    "--json",
    "{}",
];

/// A value longer than anyone could need.
fn very_long() -> String {
    "9".repeat(20_000)
}

/// Checks that the command line is always parsed to the end, whatever value an option is given, in one word or two,
/// twice or without a value. It is either accepted, or refused with a line that names the option and shows valid
/// values. `check` validates accepted arguments. The examples in the help must be accepted too.
///
/// # Panics
/// The check fails.
pub fn every_option_is_taken_or_named<T>(check: fn(&T) -> Result<(), String>)
where
    T: CommandFactory + FromArgMatches + 'static,
{
    let (done, is_done) = mpsc::channel();
    let trying = std::thread::spawn(move || {
        let mut command = T::command();
        command.build();
        try_options(&command, &[], check);
        let _ = done.send(());
    });
    let ended = is_done.recv_timeout(Duration::from_mins(2));
    assert_ne!(ended, Err(mpsc::RecvTimeoutError::Timeout), "a command line is read without an end");
    trying.join().expect("every option taken or named");
}

type Check<T> = fn(&T) -> Result<(), String>;

fn try_options<T: CommandFactory + FromArgMatches>(command: &clap::Command, path: &[String], check: Check<T>) {
    let examples = examples(command);
    let has_options = command.get_arguments().any(|argument| !is_question(argument));
    assert!(!examples.is_empty() || command.has_subcommands() || !has_options, "{path:?} shows no example");
    for example in &examples {
        let taken = read::<T>(example).unwrap_or_else(|refusal| panic!("{example:?}: {refusal:?}"));
        check(&taken).unwrap_or_else(|line| panic!("{example:?}: {line}"));
    }
    // The arguments required besides an option, taken from the example.
    let rest =
        examples.first().map(|example| example.get(path.len()..).unwrap_or_default().to_vec()).unwrap_or_default();
    for argument in command.get_arguments().filter(|argument| !is_question(argument)) {
        let Some(flag) = argument.get_long().map(|flag| format!("--{flag}")) else { continue };
        let rest = without(&rest, &flag);
        let takes_value = argument.get_action().takes_values();
        for typed in odd_uses(&flag, takes_value) {
            is_taken_or_named(&[path, &typed[..], &rest].concat(), &flag, check);
        }
        for typed in [&[flag.clone()][..], &[flag.clone(), String::from("--no-such-option")]] {
            if takes_value {
                is_taken_or_named(&[path, typed].concat(), &flag, check);
            }
        }
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        try_options(below, &[path, &[below.get_name().to_owned()]].concat(), check);
    }
}

/// Whether an option requests the help or the version.
fn is_question(argument: &clap::Arg) -> bool {
    argument.get_long().is_none_or(|flag| ["help", "version"].contains(&flag))
}

/// An option with each odd value, in one word and in two, and twice.
fn odd_uses(flag: &str, takes_value: bool) -> Vec<Vec<String>> {
    let odd: Vec<String> = ODD.map(String::from).into_iter().chain([very_long()]).collect();
    let word = |value: &str| format!("{flag}={value}");
    let in_one = odd.iter().map(|value| vec![word(value)]);
    let in_two = odd
        .iter()
        .filter(|value| takes_value && !value.starts_with("--"))
        .map(|value| vec![flag.to_owned(), value.clone()]);
    let twice = ["1", "nonsense"].map(|value| vec![word(value), word(value)]);
    in_one.chain(in_two).chain(twice).collect()
}

/// The examples in a command's help, without the program's name.
fn examples(command: &clap::Command) -> Vec<Vec<String>> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let words = |line: &str| {
        let mut words = vec![String::new()];
        for (part, text) in line.trim().split('\'').enumerate() {
            for (n, word) in text.split(if part % 2 == 0 { " " } else { "\'" }).enumerate() {
                if n > 0 {
                    words.push(String::new());
                }
                words.last_mut().expect("a word").push_str(word);
            }
        }
        words.split_off(1)
    };
    help.lines().skip(1).map(words).collect()
}

/// The words of a command line without an option and its value.
fn without(words: &[String], flag: &str) -> Vec<String> {
    let mut words = words.to_vec();
    if let Some(at) = words.iter().position(|word| word == flag) {
        let has_value = words.get(at + 1).is_some_and(|value| !value.starts_with("--"));
        words.drain(at..=at + usize::from(has_value));
    }
    words
}

fn read<T: CommandFactory + FromArgMatches>(line: &[String]) -> Result<T, Refusal> {
    let arguments: Vec<OsString> =
        std::iter::once("test").chain(line.iter().map(String::as_str)).map(OsString::from).collect();
    try_parse_from(&arguments)
}

fn is_taken_or_named<T: CommandFactory + FromArgMatches>(line: &[String], flag: &str, check: Check<T>) {
    match read::<T>(line) {
        Ok(taken) => {
            let checked = check(&taken);
            assert!(checked.as_ref().err().is_none_or(|line| line.contains("--")), "{line:.200?}: {checked:?}");
        }
        Err(Refusal::Help(_)) => panic!("{line:.200?} is no question for help"),
        Err(Refusal::Wrong(lines)) => {
            let is_named = |line: &String| line.contains(flag) && shows_what_is_right(line);
            assert!(lines.iter().any(is_named), "{line:.200?}: {lines:.500?}");
            assert!(!lines.concat().contains("s3cr3t"), "{line:.200?}: a password leaked: {lines:?}");
        }
    }
}

/// Whether a line about an option says what it accepts, or what it conflicts with.
fn shows_what_is_right(line: &str) -> bool {
    ["the default is ", "an example is: ", "it takes ", "cannot be used with", "no more were expected"]
        .iter()
        .any(|words| line.contains(words))
}

/// Checks that a program whose variables all have the same odd value ends with a line for each one it refuses.
///
/// # Panics
/// The check fails.
pub async fn odd_variables_are_named<T: CommandFactory>(program: &str, arguments: &[&str]) {
    let command = T::command();
    let variables = command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()));
    let variables: Vec<String> = variables.collect();
    let arguments: Vec<String> = arguments.iter().map(|argument| String::from(*argument)).collect();
    for value in ODD.map(String::from).into_iter().chain([very_long()]) {
        let environment: Vec<(&str, String)> =
            variables.iter().map(|variable| (variable.as_str(), value.clone())).collect();
        let ran = run(program, &arguments, &environment).await;

        assert_eq!(ran.code, Some(2), "{value:.200}: {ran:.2000?}");
        let named = |line: &str| {
            line.starts_with("error: --") && variables.iter().any(|variable| line.contains(&format!("({variable})")))
        };
        assert!(ran.stderr.lines().all(named), "{value:.200}: {ran:.2000?}");
        assert!(ran.stderr.lines().all(shows_what_is_right), "{value:.200}: {ran:.2000?}");
        assert!(
            !ran.stderr.chars().any(|c| c != '\n' && coupon_core::terminal::is_control(c)),
            "{value:.200}: {ran:?}"
        );
        assert!(!ran.stderr.contains("s3cr3t"), "a password leaked: {ran:?}");
    }
}
