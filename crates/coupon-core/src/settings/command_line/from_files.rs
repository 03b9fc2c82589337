//! Reads addresses with passwords from files, as Docker and Kubernetes hand out secrets: `COUPON_MYSQL_URL_FILE` names
//! a file that holds what `COUPON_MYSQL_URL` would.
//!
//! Invariant: an option on the command line takes precedence, as it does over a variable; a variable and its file are
//! never accepted together.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, Command};

use crate::settings::small_file;

/// What the name of the file's variable ends with.
const FILE: &str = "_FILE";

/// Arguments together with what files hold.
#[derive(Debug, Default)]
pub(super) struct WithFiles {
    pub arguments: Vec<OsString>,
    /// A line for each file that cannot be read, or whose value is also given by a variable.
    pub wrong: Vec<String>,
    /// The variables whose values come from a file.
    from_files: Vec<String>,
}

impl WithFiles {
    /// Makes a line about a value name the variable of the file that the value comes from.
    pub fn naming_files(&self, line: String) -> String {
        let named = |line: String, name: &String| line.replace(&format!("({name})"), &format!("({name}{FILE})"));
        self.from_files.iter().fold(line, named)
    }
}

/// Adds to the arguments those that files hold.
pub(super) fn with_files(
    command: &Command,
    arguments: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> WithFiles {
    let mut with = WithFiles { arguments, ..WithFiles::default() };
    for argument in command.get_arguments().filter(|argument| argument.is_hide_env_values_set()) {
        match from_file(argument, &with.arguments, &variable) {
            Ok(Some((name, option))) => {
                // Before a subcommand, where all options with a variable belong.
                with.arguments.insert(with.arguments.len().min(1), option);
                with.from_files.push(name);
            }
            Ok(None) => {}
            Err(line) => with.wrong.push(line),
        }
    }
    with
}

/// Returns the variable, and the option with the value that a file holds, if a file is named.
fn from_file(
    argument: &Arg,
    arguments: &[OsString],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, OsString)>, String> {
    let (Some(flag), Some(name)) = (argument.get_long(), argument.get_env()) else { return Ok(None) };
    let name = name.to_string_lossy();
    let file_name = format!("{name}{FILE}");
    // Compose files set a variable to an empty value to say that there is none.
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    let Some(file) = variable(&file_name).filter(|_| !is_given(flag, arguments)) else { return Ok(None) };
    if file.is_empty() {
        // Otherwise the name of a variable that does not exist would lead to the default address.
        let is_needed = given(&name).is_none();
        return if is_needed { Err(format!("{file_name} has no value, and neither has {name}")) } else { Ok(None) };
    }
    if given(&name).is_some() {
        return Err(format!("{name} and {file_name} are both given: the value comes from one of them"));
    }
    let file = Path::new(&file);
    let text = small_file(file).map_err(|reason| format!("{file_name} = '{}': {reason}", file.display()))?;
    let option = format!("--{flag}={}", text.trim_end_matches(['\r', '\n']));
    Ok(Some((name.into_owned(), option.into())))
}

fn is_given(flag: &str, arguments: &[OsString]) -> bool {
    let flag = format!("--{flag}");
    arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .any(|argument| argument.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::Parser;

    use super::super::super::{AmqpSettings, MysqlSettings};
    use super::*;

    #[derive(Debug, Parser)]
    struct Settings {
        #[command(flatten)]
        mysql: MysqlSettings,
        #[command(flatten)]
        amqp: AmqpSettings,
    }

    /// Reads these arguments, with these variables set.
    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> WithFiles {
        let arguments = std::iter::once("test").chain(arguments.iter().copied()).map(OsString::from).collect();
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
            Some(OsString::from(value))
        };
        with_files(&Settings::command(), arguments, variable)
    }

    fn file(text: &str) -> String {
        let path = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn an_address_is_read_from_a_file() {
        let address = file("mysql://coupon:SECRET@host/coupon\n");

        let read = read(&["check-health"], &[("COUPON_MYSQL_URL_FILE", &address), ("COUPON_MYSQL_URL", "")]);

        assert_eq!(read.wrong, [""; 0]);
        let line = read.naming_files(String::from("--mysql-url (COUPON_MYSQL_URL) is wrong"));
        assert_eq!(line, "--mysql-url (COUPON_MYSQL_URL_FILE) is wrong");
        assert_eq!(read.arguments, ["test", "--mysql-url=mysql://coupon:SECRET@host/coupon", "check-health"]);
        std::fs::remove_file(address).unwrap();
    }

    #[test]
    fn an_empty_variable_names_no_file() {
        let read = read(&[], &[("COUPON_MYSQL_URL_FILE", ""), ("COUPON_MYSQL_URL", "mysql://host/a")]);

        assert_eq!((read.arguments.len(), read.wrong), (1, Vec::new()));
    }

    #[test]
    fn two_empty_variables_do_not_lead_to_the_default() {
        for others in [&[][..], &[("COUPON_MYSQL_URL", "")]] {
            let read = read(&[], &[&[("COUPON_MYSQL_URL_FILE", "")], others].concat());

            assert_eq!(read.wrong, ["COUPON_MYSQL_URL_FILE has no value, and neither has COUPON_MYSQL_URL"]);
        }
    }

    #[test]
    fn an_option_comes_first() {
        for given in [&["--mysql-url=mysql://host/a"][..], &["--mysql-url", "mysql://host/a"]] {
            let read = read(given, &[("COUPON_MYSQL_URL_FILE", "/no/such/file")]);

            assert_eq!(read.arguments.len(), given.len() + 1, "{read:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_files_is_named_at_once() {
        let both = [
            ("COUPON_MYSQL_URL", "mysql://coupon:SECRET@host/coupon"),
            ("COUPON_MYSQL_URL_FILE", "/no/such/file"),
            ("COUPON_AMQP_URL_FILE", "/no/such/file"),
        ];

        let wrong = read(&[], &both).wrong;

        let both = "COUPON_MYSQL_URL and COUPON_MYSQL_URL_FILE are both given: the value comes from one of them";
        assert_eq!(wrong, [both, "COUPON_AMQP_URL_FILE = '/no/such/file': there is no such file"]);
    }
}
