//! A command line and its environment, read by clap, with everything that is wrong in it named at once.
//!
//! Invariants: a command line is read a limited number of times, and each value in it once more, so reading ends
//! whatever was typed; no message shows an address, which may hold a password.

mod from_files;
mod refusal;
mod words;

use std::ffi::OsString;

use clap::{Command, CommandFactory, FromArgMatches};

use self::from_files::with_files;
use self::refusal::refusal;
use crate::terminal;

/// Why settings were not accepted.
#[derive(Debug)]
pub enum Refusal {
    /// Help or the version was asked for.
    Help(clap::Error),
    /// A line for each thing that is wrong.
    Wrong(Vec<String>),
}

/// Reads a command's settings from its arguments and environment, or ends the program as [`end`] does. `check` finds
/// values that are valid one by one but do not fit together.
#[must_use]
pub fn parse<T: CommandFactory + FromArgMatches>(check: impl FnOnce(&T) -> Result<(), String>) -> T {
    try_parse(check).unwrap_or_else(|refusal| end(&refusal))
}

/// Like [`parse`], but returns what is wrong.
///
/// # Errors
/// Like [`try_parse_from`], and what `check` finds.
pub fn try_parse<T: CommandFactory + FromArgMatches>(
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T, Refusal> {
    // Variables that name files are read here, because clap takes no values from files.
    #[allow(clippy::disallowed_methods)]
    let variable = |name: &str| std::env::var_os(name);
    let mut read = with_files(&T::command(), std::env::args_os().collect(), variable);
    let mut wrong = std::mem::take(&mut read.wrong);
    let settings = match try_parse_from(&read.arguments) {
        Ok(settings) if wrong.is_empty() => settings,
        Ok(_) => return Err(Refusal::Wrong(wrong)),
        Err(Refusal::Wrong(lines)) => {
            wrong.extend(lines.into_iter().map(|line| read.naming_files(line)));
            return Err(Refusal::Wrong(wrong));
        }
        Err(help) => return Err(help),
    };
    check(&settings).map_err(|line| Refusal::Wrong(vec![line]))?;
    Ok(settings)
}

/// Ends the program: with status 2 and a line for *each* wrong setting, or as `--help` and `--version` ask.
pub fn end(refusal: &Refusal) -> ! {
    match refusal {
        Refusal::Wrong(lines) => {
            lines.iter().for_each(terminal::error);
            std::process::exit(2)
        }
        Refusal::Help(help) => match terminal::print(&help.to_string().trim_end()) {
            Ok(()) => std::process::exit(0),
            Err(error) => {
                terminal::error(&error);
                std::process::exit(1)
            }
        },
    }
}

/// Like [`parse`], but from the given arguments; the first is the program's name.
///
/// # Errors
/// Everything that is wrong with the values, the unknown arguments, and the first other thing that is wrong with the
/// command line itself.
pub fn try_parse_from<T: CommandFactory + FromArgMatches>(arguments: &[OsString]) -> Result<T, Refusal> {
    let arguments = with_numbers_joined(arguments);
    let mut command = like_ours(T::command());
    // An argument can be shown, and so found by name, only once it is built.
    command.build();
    let read = command.clone().try_get_matches_from(&arguments).and_then(|matches| T::from_arg_matches(&matches));
    read.map_err(|error| refusal(&command, arguments, error))
}

/// Joins each argument that begins like a negative number to the option before it: clap would take `-1s` for an option,
/// and it should be named as a wrong value.
fn with_numbers_joined(arguments: &[OsString]) -> Vec<OsString> {
    let is_option = |option: &OsString| {
        let option = option.as_encoded_bytes();
        option.len() > 2 && option.starts_with(b"--") && !option.contains(&b'=')
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match (joined.last_mut(), argument.as_encoded_bytes()) {
            (Some(option), [b'-', b'0'..=b'9', ..]) if is_option(option) => {
                option.push("=");
                option.push(argument);
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

/// Makes a command that is called without a subcommand name its subcommands in one line, instead of showing its help.
fn like_ours(command: Command) -> Command {
    command.arg_required_else_help(false).mut_subcommands(like_ours)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{AmqpSettings, MysqlSettings, ProcessSettings};
    use super::refusal::UNKNOWN_MAX;
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

    #[derive(Debug, Parser)]
    enum Below {
        #[command(after_help = "Example:\n  test count --number 3")]
        Count {
            #[arg(long)]
            number: u8,
            #[arg(long)]
            other: u8,
        },
    }

    fn read<T: Parser>(arguments: &[&str]) -> Result<T, Refusal> {
        let arguments = std::iter::once("test").chain(arguments.iter().copied()).map(OsString::from);
        try_parse_from(&arguments.collect::<Vec<_>>())
    }

    fn wrong<T: Parser + std::fmt::Debug>(arguments: &[&str]) -> Vec<String> {
        match read::<T>(arguments).unwrap_err() {
            Refusal::Wrong(lines) => lines,
            Refusal::Help(_) => panic!("{arguments:?} is no question for help"),
        }
    }

    #[test]
    fn an_option_before_its_command_is_named_with_where_it_goes() {
        let lines = wrong::<Below>(&["--number=3", "count", "--other=1"]);

        assert!(lines.iter().any(|line| line.contains("count --number <NUMBER>")), "{lines:?}");
    }

    #[test]
    fn defaults_are_complete() {
        let settings: Settings = read(&[]).unwrap();

        assert_eq!(settings.mysql.mysql_connections, 16);
        assert_eq!(settings.amqp.amqp_deadline, std::time::Duration::from_secs(5));
        assert_eq!(format!("{:?}", settings.process.log_format), "Text");
    }

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let lines = wrong::<Settings>(&[
            "--mysql-connections=0",
            "--mysql-deadline=soon",
            "--amqp-url=http://secret:word@host",
            "--log-format=xml",
            "--no-such",
        ]);

        assert_eq!(lines.len(), 5, "{lines:?}");
        let refusal = lines.join("\n");
        for words in [
            "--mysql-connections (MYSQL_CONNECTIONS) = '0': must be a whole number from 1 to 512; the default is 16",
            "(MYSQL_DEADLINE)",
            "(COUPON_AMQP_URL)",
            "(LOG_FORMAT) = 'xml'; it takes one of text, json",
            "unexpected argument '--no-such' found; --help",
        ] {
            assert!(refusal.contains(words), "{words} is missing in:\n{refusal}");
        }
        assert!(!refusal.contains("word"), "a password leaked: {refusal}");
    }

    #[test]
    fn an_option_without_its_value_is_named_beside_the_others() {
        for arguments in
            [&["--mysql-connections"][..], &["--mysql-deadline=soon", "--mysql-connections", "--log-format=xml"]]
        {
            let lines = wrong::<Settings>(arguments);

            assert_eq!(lines.len(), arguments.len(), "{lines:?}");
            let missing = "--mysql-connections (MYSQL_CONNECTIONS) has no value; the default is 16";
            assert!(lines.iter().any(|line| line == missing), "{lines:?}");
        }
    }

    #[test]
    fn a_question_for_help_is_answered_with_the_options_as_they_are() {
        let Refusal::Help(help) = read::<Settings>(&["--help"]).unwrap_err() else { panic!() };

        assert!(help.to_string().contains("--mysql-connections <N>"), "{help}");
        for question in ["--help", "-h", "help"] {
            let lines = wrong::<Settings>(&["--mysql-connections=0", question]);
            assert!(matches!(&lines[..], [line] if line.contains("= '0'")), "{question}: {lines:?}");
        }
    }

    #[test]
    fn an_option_that_is_given_twice_is_named_with_a_right_value() {
        for values in ["12", "ab"] {
            let lines = values.chars().map(|value| format!("--mysql-connections={value}")).collect::<Vec<_>>();
            let lines = wrong::<Settings>(&lines.iter().map(String::as_str).collect::<Vec<_>>());

            let is_named =
                |line: &String| line.contains("'--mysql-connections <N>'") && line.ends_with("default is 16");
            assert!(lines.iter().any(is_named), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        use std::os::unix::ffi::OsStringExt;

        let arguments = [b"test".to_vec(), b"--log=\xff\xfe".to_vec()].map(OsString::from_vec);
        let Refusal::Wrong(lines) = try_parse_from::<Settings>(&arguments).unwrap_err() else { panic!() };

        assert!(matches!(&lines[..], [line] if line.starts_with("--log (LOG) is not UTF-8 text; ")), "{lines:?}");
    }

    #[test]
    fn a_command_without_its_subcommand_names_those_that_there_are() {
        let lines = wrong::<Below>(&[]);

        assert!(matches!(&lines[..], [line] if line.contains("count")), "{lines:?}");
    }

    #[test]
    fn what_is_no_number_is_answered_with_the_range() {
        for value in ["0", "513", "-1", "1.5", "many", "", "99999999999999999999"] {
            let lines = wrong::<Settings>(&[&format!("--mysql-connections={value}")]);
            let expected = ": must be a whole number from 1 to 512; the default is 16";
            assert!(matches!(&lines[..], [line] if line.ends_with(expected)), "{lines:?}");
        }
    }

    #[test]
    fn a_setting_after_the_command_is_answered_with_its_place() {
        let lines = wrong::<Settings>(&["check-health", "--mysql-connections=3"]);

        let place = "; it goes before the command: coupon-core --mysql-connections <N> check-health";
        assert!(matches!(&lines[..], [line] if line.ends_with(place)), "{lines:?}");
    }

    #[test]
    fn what_is_misspelt_is_named_with_what_is_similar() {
        assert!(wrong::<Settings>(&["--mysql-ulr=x"]).concat().ends_with("; a similar one is --mysql-url"));
        assert!(wrong::<Below>(&["cuont"]).concat().ends_with("; a similar one is count"));
    }

    #[test]
    fn values_below_a_subcommand_are_named_too() {
        let lines = wrong::<Below>(&["count", "--number=many", "--other=300"]);

        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("; an example is: test count --number 3"), "{lines:?}");
        let lines = wrong::<Below>(&["count", "--number", "-1", "--other=300"]);
        let wrong_number = |name: &str| format!("{name}: must be a whole number from 0 to 255; ");
        assert!(lines[0].starts_with(&wrong_number("--number = '-1'")), "{lines:?}");
        assert!(lines[1].starts_with(&wrong_number("--other = '300'")), "{lines:?}");
        let lines = wrong::<Below>(&["count", "--number", "-1s", "--other", "300"]);
        assert!(lines[0].starts_with(&wrong_number("--number = '-1s'")), "{lines:?}");
        assert!(lines[1].starts_with(&wrong_number("--other = '300'")), "{lines:?}");
        for line in [&["count"][..], &["count", "3"], &["count", "--number=3", "--other=3", "3"]] {
            let lines = wrong::<Below>(line);
            let example = "; an example is: test count --number 3";
            assert!(matches!(&lines[..], [line] if line.ends_with(example)), "{lines:?}");
        }
    }

    #[test]
    fn what_is_not_known_hides_no_wrong_value_behind_it() {
        let lines =
            wrong::<Settings>(&["-1s", "--no-such=1", "--mysql-deadline", "-1s", "--no-more", "--log-format=xml"]);

        let starts = ["--mysql-deadline (MYSQL_DEADLINE) = '-1s'", "--log-format", "unexpected argument '-1'"];
        let starts = starts.into_iter().chain(["unexpected argument '--no-such'", "unexpected argument '--no-more'"]);
        assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)) && lines.len() == 5, "{lines:?}");
        let many = vec!["--no-such"; 1_000];
        assert_eq!(wrong::<Settings>(&[&["--log-format=xml"], &many[..]].concat()).len(), UNKNOWN_MAX + 1);
    }

    #[test]
    fn an_empty_element_of_a_list_is_named_as_one() {
        #[derive(Debug, Parser)]
        struct Listed {
            #[arg(long, value_delimiter = ',')]
            numbers: Vec<u8>,
        }

        for list in ["1,,2", ",,1", "1,"] {
            let lines = wrong::<Listed>(&[&format!("--numbers={list}")]);
            let start = "--numbers has an empty element: must be a whole number";
            assert!(matches!(&lines[..], [line] if line.starts_with(start)), "{lines:?}");
        }
        assert!(wrong::<Listed>(&["--numbers="]).concat().starts_with("--numbers has no value"));
    }

    #[test]
    fn an_address_in_another_place_than_its_own_is_not_shown() {
        for line in [
            &["mysql://coupon:SECRET@host/coupon"][..],
            &["coupon:SECRET@host"],
            &["--mysql-ulr=mysql://coupon:SECRET@host/coupon"],
            &["--mysql-ulr", "mysql://coupon:SECRET@host/coupon"],
            &["--mysql-connections=mysql://coupon:SECRET@host/coupon"],
            &["--mysql-url", "mysql://host/coupon", "mysql://coupon:SECRET@host/coupon"],
            &["--log-format", "json", "--mysql-connections", "0", "mysql://coupon:SECRET@host/coupon"],
            &["check-health=mysql://coupon:SECRET@host/coupon"],
            &["check-health", "mysql://coupon:SECRET@host/coupon"],
        ] {
            let lines = wrong::<Settings>(line);
            assert!(!lines.concat().contains("SECRET"), "{lines:?}");
        }
    }
}
