//! Says in one line why two ends cannot speak TLS: one does not trust the certificate of the other, or does not speak
//! TLS at all.
//!
//! The drivers wrap the cause in errors of their own, each in a different place.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use deadpool_redis::PoolError;
use rustls::CertificateError::{
    self, BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};
use rustls::{AlertDescription, Error as TlsError};

use super::Error;
use super::servers::Advice;
use crate::terminal;

/// Characters that are shown of the names in a certificate, which may have hundreds.
const NAMES_SHOWN: usize = 120;

/// The TLS error within an error, if there is one.
pub fn trouble(error: &Error) -> Option<&TlsError> {
    match error {
        Error::Mysql(error) => within(error),
        Error::Redis(error) | Error::RedisPool(PoolError::Backend(error)) => within(error),
        Error::Amqp(error) => within(error),
        Error::Management(error) => within(error),
        _ => None,
    }
}

/// The words for a driver's error, if it is about TLS.
pub fn words(error: &(dyn StdError + 'static)) -> Option<String> {
    within(error).map(|trouble| match trouble {
        TlsError::InvalidCertificate(reason) => of_certificate(reason),
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            String::from("it requires a certificate, and none is given")
        }
        TlsError::AlertReceived(alert) if is_about_ours(*alert) => {
            format!("it refuses the certificate of this program ({alert:?})")
        }
        TlsError::InvalidMessage(_) => String::from("what answers does not speak TLS"),
        other => terminal::printable(&terminal::shortened(&other.to_string(), NAMES_SHOWN)),
    })
}

/// What an operator can do about it. The error stays until then, since the other end has answered.
pub fn advice(trouble: &TlsError) -> Advice {
    Advice::mend(match trouble {
        TlsError::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "let TLS_CA name a file with the authority of its certificate"
        }
        TlsError::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "name a host of its certificate in the address, or give it a certificate for this one"
        }
        TlsError::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }) => {
            "give it a new certificate, or correct the clock of this machine"
        }
        TlsError::InvalidCertificate(_) => "give it a certificate that can be checked",
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => "set TLS_CLIENT_CERT and TLS_CLIENT_KEY",
        TlsError::AlertReceived(alert) if is_about_ours(*alert) => {
            "let TLS_CLIENT_CERT and TLS_CLIENT_KEY name a certificate that it trusts"
        }
        _ => "let its address lead to a port on which it speaks TLS",
    })
}

fn of_certificate(reason: &CertificateError) -> String {
    match reason {
        NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| host(name)).collect();
            let names = terminal::printable(&terminal::shortened(&names.join(", "), NAMES_SHOWN));
            let names = if names.is_empty() { String::from("no host") } else { names };
            format!("its certificate is not for {} but for {names}", expected.to_str())
        }
        NotValidForName => String::from("its certificate is not for this host"),
        Expired | ExpiredContext { .. } => String::from("its certificate has expired"),
        NotValidYet | NotValidYetContext { .. } => String::from("its certificate is not valid yet"),
        UnknownIssuer => String::from("its certificate was issued by an unknown authority"),
        BadSignature => String::from("its certificate is of another authority of the same name"),
        // The library that checks certificates has no text for this error of its own.
        CertificateError::Other(reason) if format!("{reason:?}").contains("CaUsedAsEndEntity") => {
            String::from("its certificate is that of an authority (CA:TRUE), which a server must not use")
        }
        other => format!("its certificate is refused: {other}"),
    }
}

/// The host in a name as rustls writes it, such as `DnsName("shop.example")`.
fn host(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, name)| name).trim_matches(['"', ')'])
}

fn is_about_ours(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(trouble) = error.downcast_ref() {
            return Some(trouble);
        }
        next = deeper(error);
    }
    None
}

/// The error inside an error. Two kinds skip the one that they hold, and return the next one as their source.
fn deeper<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|held| held as &(dyn StdError + 'static));
    }
    match error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        Some(held) => Some(&**held),
        None => error.source(),
    }
}
