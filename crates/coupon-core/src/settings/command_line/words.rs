//! The words for what is wrong with a command line: a line that names the option and its variable, says what is wrong
//! and ends with what would be right.
//!
//! Invariant: no line shows an address, which may hold a password, or a value of unlimited length.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::num::ParseIntError;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::terminal;

/// Characters of a wrong value that are shown.
const VALUE_SHOWN: usize = 80;

/// The error of an option about a value, regardless of the rest of the command line.
pub fn refused(argument: &Arg, value: &OsStr) -> Option<clap::Error> {
    let alone = Arg::new("value").long("value").value_parser(argument.get_value_parser().clone());
    let mut typed = OsString::from("--value=");
    typed.push(value);
    Command::new("").no_binary_name(true).arg(alone).try_get_matches_from([typed]).err()
}

/// Names an option, its variable, and what is wrong with its value, or with one value of its list.
pub fn wrong_value(argument: &Arg, value: &OsStr, is_of_list: bool, error: &clap::Error) -> String {
    let name = named(argument);
    let Some(value) = value.to_str() else { return format!("{name} is not UTF-8 text") };
    let reason = error.source().map(|reason| format!(": {}", reason_for(argument, value, reason))).unwrap_or_default();
    match value {
        "" if is_of_list => format!("{name} has an empty element{reason}"),
        "" => format!("{name} has no value{reason}"),
        _ if argument.is_hide_env_values_set() || may_be_address(value) => {
            format!("{name} has a value that is refused{reason}")
        }
        _ => format!("{name} = '{}'{reason}", terminal::shortened(value, VALUE_SHOWN)),
    }
}

/// What a value must be. For numbers, std and clap would use the terms of Rust.
fn reason_for(argument: &Arg, value: &str, reason: &(dyn Error + 'static)) -> String {
    const OUT_OF: &str = " is not in ";

    let reason_text = reason.to_string();
    if !reason.is::<ParseIntError>() && !reason_text.starts_with(&format!("{value}{OUT_OF}")) {
        return reason_text;
    }
    // The range is named only in the error about a value outside it.
    let range = [i64::MIN.to_string(), u64::MAX.to_string()].iter().find_map(|outside| {
        let text = refused(argument, OsStr::new(outside))?.source()?.to_string();
        Some(text.split_once(OUT_OF)?.1.replace("..=", " to "))
    });
    let range = range.map(|range| format!(" from {range}")).unwrap_or_default();
    format!("must be a whole number{range}")
}

/// What an option would accept: one of its values, its default, or what it has in the example of its command.
pub fn right_value(argument: &Arg, command: &Command) -> String {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let names: Vec<&str> = possible.iter().map(clap::builder::PossibleValue::get_name).collect();
        return format!("; it takes one of {}", names.join(", "));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().map(|default| default.to_string_lossy()).collect();
    match (&defaults[..], example_with(command, argument.get_long())) {
        ([], Some(example)) => format!("; an example is: {example}"),
        ([], None) => format!("; it takes {argument}"),
        (defaults, _) => format!("; the default is {}", defaults.join(" ")),
    }
}

/// The example of a command that has this option, or the first one.
fn example_with(command: &Command, flag: Option<&str>) -> Option<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut examples = help.lines().skip(1).map(str::trim);
    let found = match flag {
        Some(flag) => examples.find(|example| example.contains(&format!(" --{flag} "))),
        None => examples.next(),
    };
    found.map(str::to_owned)
}

/// An argument's flag and variable.
pub fn named(argument: &Arg) -> String {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let flag = argument.get_long().map(|flag| format!("--{flag}"));
    let flag = flag.or_else(|| Some(format!("<{}>", value?))).unwrap_or_default();
    match argument.get_env() {
        Some(variable) => format!("{flag} ({})", variable.to_string_lossy()),
        None => flag,
    }
}

/// clap's own words on a command line, up to its hints on usage, with what would be right.
pub fn wrong_line(command: &Command, arguments: &[OsString], error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    // clap writes an option that need not have a value in brackets.
    let line = lines.join(" ").trim_start_matches("error: ").replace("[<", "<").replace(">]", ">");
    let asked = asked_for(command, arguments);
    let blamed = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => {
            let flag = name.split([' ', '=', '[']).next().and_then(|flag| flag.strip_prefix("--"));
            let options = [asked, command].map(Command::get_arguments);
            options.into_iter().flatten().find(|argument| flag.is_some() && argument.get_long() == flag)
        }
        _ => None,
    };
    let similar =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand].into_iter().find_map(|kind| {
            match error.get(kind)? {
                ContextValue::String(name) => Some(name.clone()),
                ContextValue::Strings(names) => Some(names.join(", ")),
                _ => None,
            }
        });
    match (blamed, error.kind()) {
        (Some(argument), ErrorKind::UnknownArgument) if !std::ptr::eq(asked, command) => {
            let (whole, name) = (asked.get_bin_name().unwrap_or_default(), command.get_name());
            if command.get_arguments().any(|own| own.get_id() == argument.get_id()) {
                format!(
                    "{line}; it goes before the command: {}",
                    whole.replacen(name, &format!("{name} {argument}"), 1)
                )
            } else {
                format!("{line}; it goes after the command: {whole} {argument}")
            }
        }
        _ if similar.is_some() => format!("{line}; a similar one is {}", similar.unwrap_or_default()),
        (Some(argument), _) if argument.get_action().takes_values() => line + &right_value(argument, asked),
        (
            _,
            kind @ (ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand),
        ) => {
            let is_of_this = kind == ErrorKind::MissingRequiredArgument || !std::ptr::eq(asked, command);
            match example_with(asked, None).filter(|_| is_of_this) {
                Some(example) => format!("{line}; an example is: {example}"),
                None => line + "; --help shows what there is",
            }
        }
        _ => line,
    }
}

/// The command, or the one below it, that these arguments ask for.
fn asked_for<'a>(command: &'a Command, arguments: &[OsString]) -> &'a Command {
    let below = |command: &'a Command, argument: &OsString| command.find_subcommand(argument).unwrap_or(command);
    arguments.iter().skip(1).fold(command, below)
}

/// Hides in a line the addresses that were typed in a place where they do not belong.
pub fn without_addresses(line: String, arguments: &[OsString]) -> String {
    let typed = arguments.iter().map(|argument| argument.to_string_lossy());
    let suspects = typed.filter(|argument| may_be_address(argument));
    suspects.fold(line, |line, argument| {
        let value = argument.split_once('=').map_or(&*argument, |(_, value)| value);
        line.replace(&*argument, "…").replace(value, "…")
    })
}

/// Whether a text may be an address with a password, or a part of one.
fn may_be_address(text: &str) -> bool {
    text.contains("://") || text.contains('@')
}
