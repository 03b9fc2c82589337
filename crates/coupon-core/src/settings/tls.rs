//! The settings of TLS to servers, which are the same for all of them.
//!
//! Invariants: the group of settings for each server includes these, and a program with several such groups has the
//! options once; what was read can be used, so that no connection fails because of a file.

use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use secrecy::SecretString;

use crate::tls::{Authorities, Pair, ToServers};

/// Which servers are trusted, and what this program shows them, if an address asks for TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings(pub ToServers);

/// The id by which the first of the options is found in a command that has it.
const TLS_CA: &str = "tls_ca";

#[derive(Args)]
struct Options {
    /// File with the certificate authorities, in PEM, that may vouch for a server whose address asks for TLS, in place
    /// of the system's.
    #[arg(id = TLS_CA, long = "tls-ca", env = "TLS_CA", value_name = "FILE", value_parser = authorities)]
    authorities: Option<Authorities>,

    /// File with the certificate that this program shows to servers, in PEM, and those between it and its authority.
    #[arg(long = "tls-client-cert", env = "TLS_CLIENT_CERT", value_name = "FILE", value_parser = certificates)]
    certificates: Option<String>,

    /// File with the private key of that certificate, in PEM.
    #[arg(long = "tls-client-key", env = "TLS_CLIENT_KEY", value_name = "FILE", value_parser = key)]
    key: Option<SecretString>,
}

fn authorities(file: &str) -> Result<Authorities, String> {
    Authorities::in_file(Path::new(file))
}

fn certificates(file: &str) -> Result<String, String> {
    Pair::certificates_in_file(Path::new(file))
}

fn key(file: &str) -> Result<SecretString, String> {
    Pair::key_in_file(Path::new(file))
}

impl Options {
    fn settings(self) -> Result<TlsSettings, String> {
        const CERT: &str = "--tls-client-cert (TLS_CLIENT_CERT)";
        const KEY: &str = "--tls-client-key (TLS_CLIENT_KEY)";

        let own = match (self.certificates, self.key) {
            (Some(certificates), Some(key)) => Some(Pair { certificates, key }),
            (None, None) => None,
            (Some(_), None) => return Err(format!("{CERT} is given without {KEY}: it takes both, or neither")),
            (None, Some(_)) => return Err(format!("{KEY} is given without {CERT}: it takes both, or neither")),
        };
        let to_servers = ToServers::new(self.authorities, own);
        to_servers.map(TlsSettings).map_err(|reason| format!("{KEY}: {reason}; it takes the key of {CERT}"))
    }
}

impl Args for TlsSettings {
    fn augment_args(command: Command) -> Command {
        // Another group may already have added the options.
        if command.get_arguments().any(|argument| argument.get_id() == TLS_CA) {
            command
        } else {
            Options::augment_args(command)
        }
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TlsSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // From a copy, because the next group reads the same matches.
        Options::from_arg_matches(matches)?
            .settings()
            .map_err(|line| clap::Error::raw(ErrorKind::ArgumentConflict, line))
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches(matches)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
