//! What is logged: levels, for all modules or by module.
//!
//! Invariants: a word that is not a level is refused, because it would be taken for a module and silence all others;
//! modules for which no level is given still log errors; below info only our own crates log, because drivers log there
//! what they send, passwords included.

use std::fmt;
use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The prefixes of our own modules.
const OURS: [&str; 6] = ["coupon_", "couponctl", "producer_api", "queue_consumer", "redis_api", "skiplock_api"];

/// Not logged unless it is named: it logs what strangers send as an error of ours.
const OF_STRANGERS: &str = "actix_http";

/// A checked filter of log lines, such as `info,lapin=warn`.
#[derive(Clone, Debug)]
pub struct LogFilter {
    text: String,
    targets: Targets,
}

impl LogFilter {
    /// Whether what a module logs at a level is shown.
    #[must_use]
    pub fn enables(&self, module: &str, level: Level) -> bool {
        let is_ours = OURS.iter().any(|ours| module.starts_with(ours));
        (is_ours || level <= Level::INFO) && self.targets.would_enable(module, &level)
    }

    /// The lowest level that any module may log.
    #[must_use]
    pub fn lowest(&self) -> LevelFilter {
        self.targets
            .iter()
            .map(|(_, level)| level)
            .chain(self.targets.default_level())
            .max()
            .unwrap_or(LevelFilter::OFF)
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut targets = Targets::new().with_default(LevelFilter::ERROR).with_target(OF_STRANGERS, LevelFilter::OFF);
        for part in text.split(',').map(str::trim) {
            targets = match part.split_once('=') {
                None => targets.with_default(level(part)?),
                Some((module, of_module)) => targets.with_target(target(module)?, level(of_module)?),
            };
        }
        Ok(Self { text: text.to_owned(), targets })
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let known = levels.iter().find(|level| text.eq_ignore_ascii_case(level)).and_then(|level| level.parse().ok());
    known.ok_or_else(|| format!("must be a level ({}), or levels by module as in info,lapin=warn", levels.join(", ")))
}

fn target(text: &str) -> Result<&str, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    if text.is_empty() || !text.chars().all(allowed) {
        return Err(String::from("must name a module before each =, as in info,lapin=warn"));
    }
    Ok(text)
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in [
            "",
            "warning",
            "inof",
            "information",
            "lapin",
            "info,",
            ",",
            "info;lapin=warn",
            "info lapin=off",
            "lapin=loud",
            "=info",
            "info,[span",
            "[span]=info",
            "a b=info",
            "info=",
            "5",
            "true",
        ] {
            assert!(LogFilter::from_str(text).is_err(), "{text} was taken");
        }
        for text in
            ["info", "WARN", "off", "info,actix_server=warn,lapin=off", "lapin::channel=trace, coupon_core=debug"]
        {
            assert_eq!(LogFilter::from_str(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_no_level_is_given_for_still_logs_its_errors() {
        let filter = LogFilter::from_str("lapin=trace").unwrap();

        assert!(filter.targets.would_enable("coupon_core::service", &Level::ERROR));
        assert!(!filter.targets.would_enable("coupon_core::service", &Level::WARN));
    }

    #[test]
    fn drivers_say_nothing_below_info() {
        for (text, target, level, is_logged) in [
            ("trace", "coupon_core::mysql", "trace", true),
            ("trace", "producer_api", "debug", true),
            ("trace", "lapin::channel", "info", true),
            ("trace", "lapin::channel", "debug", false),
            ("lapin=trace", "lapin::channel", "trace", false),
            ("lapin=trace", "lapin::channel", "warn", true),
            ("info,lapin=off", "lapin::channel", "error", false),
        ] {
            let (filter, level) = (LogFilter::from_str(text).unwrap(), level.parse().unwrap());
            assert_eq!(filter.enables(target, level), is_logged, "{text} {target} {level}");
        }
    }
}
