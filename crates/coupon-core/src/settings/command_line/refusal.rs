//! Finds everything that is wrong with a command line that clap refuses. clap stops at the first error, so the line is
//! read again and again, each time without what was found.

use std::ffi::{OsStr, OsString};

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Refusal;
use super::words::{named, refused, right_value, without_addresses, wrong_line, wrong_value};

/// The most unknown arguments that are named; there may be thousands.
pub(super) const UNKNOWN_MAX: usize = 10;

/// Collects everything that is wrong, beginning with the first error. If that is about a value, reading goes on with
/// values that may be anything; if it is about an unknown argument, reading goes on without it: to the end, or up to
/// something else that is wrong with the line.
pub(super) fn refusal(command: &Command, mut arguments: Vec<OsString>, first: clap::Error) -> Refusal {
    if !first.use_stderr() {
        return Refusal::Help(first);
    }
    let is_about_value =
        matches!(first.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::InvalidUtf8);
    let reading_on =
        |arguments: &[OsString]| taking_anything(command.clone(), false).try_get_matches_from(arguments).err();
    let mut error = if is_about_value { reading_on(&arguments) } else { Some(first) };
    let mut lines = Vec::new();
    while let Some(wrong) = error {
        let unknown = unknown(&wrong, &arguments).filter(|_| lines.len() < UNKNOWN_MAX);
        if unknown.is_some() || lines.is_empty() {
            lines.push(without_addresses(wrong_line(command, &arguments, &wrong), &arguments));
        }
        let Some(place) = unknown else { break };
        arguments.remove(place);
        error = reading_on(&arguments);
    }
    let mut wrong = Vec::new();
    if let Ok(given) = taking_anything(command.clone(), true).try_get_matches_from(arguments) {
        wrong_values(command, &given, &mut wrong);
    }
    Refusal::Wrong([wrong, lines].concat())
}

/// The place of an unknown option.
fn unknown(error: &clap::Error, arguments: &[OsString]) -> Option<usize> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_it = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        // For an option with a single dash, clap names only the first letter.
        argument.split('=').next() == Some(name) || name.chars().count() == 2 && argument.starts_with(name)
    };
    let is_unknown = error.kind() == ErrorKind::UnknownArgument && name.starts_with('-');
    arguments.iter().skip(1).position(is_it).filter(|_| is_unknown).map(|place| place + 1)
}

/// Returns the same command, but with options that take any value or none, and without an answer to `--help`. Anything
/// wrong with the line itself ends the reading, with an error or with what was read so far.
fn taking_anything(command: Command, ignoring_errors: bool) -> Command {
    let free = |argument: Arg| match argument.get_action() {
        action if action.takes_values() => argument.value_parser(ValueParser::os_string()).num_args(0..=1),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version => {
            argument.action(ArgAction::SetTrue)
        }
        _ => argument,
    };
    let command = command.disable_help_subcommand(true).ignore_errors(ignoring_errors).mut_args(free);
    command.mut_subcommands(|below| taking_anything(below, ignoring_errors))
}

/// Adds a line for each value that its option refuses.
fn wrong_values(command: &Command, given: &ArgMatches, wrong: &mut Vec<String>) {
    for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
        let id = argument.get_id().as_str();
        if !matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let values: Vec<&OsStr> = given.get_raw(id).into_iter().flatten().collect();
        if values.is_empty() {
            wrong.push(format!("{} has no value{}", named(argument), right_value(argument, command)));
        }
        for value in &values {
            if let Some(error) = refused(argument, value) {
                let line = wrong_value(argument, value, values.len() > 1, &error) + &right_value(argument, command);
                // A second empty element has nothing to add to the first.
                wrong.extend((wrong.last() != Some(&line)).then_some(line));
            }
        }
    }
    if let Some((name, given)) = given.subcommand()
        && let Some(below) = command.find_subcommand(name)
    {
        wrong_values(below, given, wrong);
    }
}
