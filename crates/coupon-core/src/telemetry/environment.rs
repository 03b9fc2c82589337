//! What the `OTEL_*` variables say about spans, read once before a service starts.
//!
//! Invariant: no value is silently skipped. One that cannot be used is refused, in one line that names the variable and
//! what it takes; a variable that nothing reads is named in the log. An empty variable counts as not set, as the
//! specification of OpenTelemetry requires. No line quotes an address or a header: both may hold a secret.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};

use crate::settings::{ServerUrl, collector_url};
use crate::terminal;

/// Where collectors listen for OTLP over gRPC by default.
const COLLECTOR: &str = "http://localhost:4317";

/// Characters of a wrong value that are shown.
const VALUE_SHOWN: usize = 80;

const SAMPLERS: [&str; 6] = [
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "always_on",
    "always_off",
    "traceidratio",
];

/// The variables that are read. Where there is one for traces alone, it comes first and takes precedence.
const READ: [&[&str]; 14] = [
    DISABLED,
    EXPORTER,
    PROTOCOL,
    COMPRESSION,
    HEADERS,
    ATTRIBUTES,
    TIMEOUT,
    ENDPOINT,
    INSECURE,
    SAMPLER,
    RATIO,
    QUEUE_MAX,
    BATCH_MAX,
    SEND_EVERY,
];
const DISABLED: &[&str] = &["OTEL_SDK_DISABLED"];
const EXPORTER: &[&str] = &["OTEL_TRACES_EXPORTER"];
const PROTOCOL: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSION: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const HEADERS: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const ATTRIBUTES: &[&str] = &["OTEL_RESOURCE_ATTRIBUTES"];
const TIMEOUT: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const ENDPOINT: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const INSECURE: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
const SAMPLER: &[&str] = &["OTEL_TRACES_SAMPLER"];
const RATIO: &[&str] = &["OTEL_TRACES_SAMPLER_ARG"];
const QUEUE_MAX: &[&str] = &["OTEL_BSP_MAX_QUEUE_SIZE"];
const BATCH_MAX: &[&str] = &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"];
const SEND_EVERY: &[&str] = &["OTEL_BSP_SCHEDULE_DELAY"];

/// The name of the service that sends the spans; any text is valid.
pub const SERVICE: &str = "OTEL_SERVICE_NAME";

/// How spans are made and sent.
#[derive(Debug)]
pub struct Settings {
    /// The collector.
    pub endpoint: ServerUrl,
    /// How long the collector may take to answer.
    pub timeout: Duration,
    /// Which claims are traced.
    pub sampler: Sampler,
    /// How many finished spans may wait for the collector: each takes about a kilobyte, and its place half of one even
    /// while no span waits. The default of the SDK holds 50 ms of a crowd of which each claim is traced.
    pub queue_max: usize,
    /// The most spans in one request to the collector, which takes 4 MiB by default; at most `queue_max`.
    pub batch_max: usize,
    /// How often spans are sent: by default often enough that somebody who has just claimed finds the trace.
    pub send_every: Duration,
}

/// Reads the environment of this process. `None` means that no spans are to be sent.
///
/// # Errors
/// A line for each variable whose value cannot be used.
pub fn read() -> Result<Option<Settings>, Vec<String>> {
    Environment { variable, wrong: Vec::new() }.settings()
}

/// The `OTEL_*` variables that are set and that nothing reads, such as a misspelt one.
pub fn unread() -> Vec<String> {
    let names = std::env::vars_os().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
    let names = names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("OTEL_"));
    names.filter(|name| name != SERVICE && !READ.concat().contains(&name.as_str())).collect()
}

/// The value of a variable, if it is set; an empty one counts as not set.
#[expect(
    clippy::disallowed_methods,
    reason = "these are OpenTelemetry's settings, which have no flags and are the same for every service"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

struct Environment<F> {
    variable: F,
    wrong: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn settings(mut self) -> Result<Option<Settings>, Vec<String>> {
        let is_off = self.one_of(DISABLED, &["false", "true"]) == "true";
        let is_off = self.one_of(EXPORTER, &["otlp", "none"]) == "none" || is_off;
        self.one_of(PROTOCOL, &["grpc"]);
        self.one_of(COMPRESSION, &["none"]);
        self.pairs(HEADERS, |name, value| {
            HeaderName::from_str(name).is_ok() && HeaderValue::from_str(value).is_ok_and(|value| !value.is_empty())
        });
        self.pairs(ATTRIBUTES, |name, _| !name.is_empty());
        let queue_max = self.number(QUEUE_MAX, 1..=1_000_000, 8_192);
        let batch_max = self.number(BATCH_MAX, 1..=queue_max, queue_max.min(2_048));
        let timeout = Duration::from_millis(self.number(TIMEOUT, 1..=600_000, 10_000));
        let send_every = Duration::from_millis(self.number(SEND_EVERY, 1..=3_600_000, 1_000));
        let sampler = self.sampler();
        let [queue_max, batch_max] = [queue_max, batch_max].map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        match self.endpoint() {
            Some(endpoint) if self.wrong.is_empty() => {
                let settings = Settings { endpoint, timeout, sampler, queue_max, batch_max, send_every };
                Ok((!is_off).then_some(settings))
            }
            _ => Err(self.wrong),
        }
    }

    /// Reads the address of the collector. Whether one without a scheme asks for TLS is up to [`INSECURE`]; it does by
    /// default.
    fn endpoint(&mut self) -> Option<ServerUrl> {
        let scheme = if self.one_of(INSECURE, &["false", "true"]) == "true" { "http" } else { "https" };
        let Some((name, value)) = self.set(ENDPOINT) else { return collector_url(COLLECTOR).ok() };
        let has_scheme = value.contains("://") || !value.contains(':');
        let address = if has_scheme { value } else { format!("{scheme}://{value}") };
        let read = collector_url(&address);
        read.map_err(|wrong| self.refuse(name, &format!("has a value that is refused: {wrong}"), COLLECTOR)).ok()
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.one_of(SAMPLER, &SAMPLERS);
        let ratio = self.ratio();
        let root = match name.trim_start_matches("parentbased_") {
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(ratio.unwrap_or(1.0)),
            _ if ratio.is_some() && !name.ends_with("always_off") => {
                let wrong = format!("has no effect on the sampler {name}");
                self.refuse("OTEL_TRACES_SAMPLER_ARG", &wrong, "OTEL_TRACES_SAMPLER=parentbased_traceidratio with it");
                Sampler::AlwaysOn
            }
            _ => Sampler::AlwaysOn,
        };
        if name.starts_with("parentbased_") { Sampler::ParentBased(Box::new(root)) } else { root }
    }

    /// The fraction of all traces to record.
    fn ratio(&mut self) -> Option<f64> {
        let (name, value) = self.set(RATIO)?;
        let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            self.refuse(name, &shown(&value), "a number from 0 to 1, such as 0.01");
        }
        ratio
    }

    /// The first of some variables that is set, and its value.
    fn set(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, (self.variable)(name)?)))
    }

    /// Reads a variable that takes certain words, in any case; the first of them is the default.
    fn one_of(&mut self, names: &[&'static str], words: &[&'static str]) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        let Some((name, value)) = self.set(names) else { return default };
        let known = words.iter().find(|word| value.eq_ignore_ascii_case(word));
        if known.is_none() {
            self.refuse(name, &shown(&value), words.join(", "));
        }
        known.copied().unwrap_or(default)
    }

    fn number(&mut self, names: &[&'static str], range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some((name, value)) = self.set(names) else { return default };
        let number = u64::from_str(&value).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let takes = format!("a number from {} to {}, such as {default}", range.start(), range.end());
            self.refuse(name, &shown(&value), takes);
        }
        number.unwrap_or(default)
    }

    /// Checks a list that the SDK itself reads, because the SDK leaves out what it cannot read.
    fn pairs(&mut self, names: &[&'static str], is_right: fn(&str, &str) -> bool) {
        let Some((name, value)) = self.set(names) else { return };
        let is_pair = |part: &str| {
            part.split_once('=').is_some_and(|(key, value)| {
                let value = percent_decode_str(value.trim()).decode_utf8();
                value.is_ok_and(|value| !value.is_empty() && is_right(key.trim(), &value))
            })
        };
        let wrong = value.split_terminator(',').filter(|part| !is_pair(part)).count();
        if wrong > 0 {
            self.refuse(name, &format!("has {wrong} parts that cannot be read"), "name=value,name=value");
        }
    }

    fn refuse(&mut self, name: &str, wrong: &str, takes: impl Display) {
        self.wrong.push(format!("{name} {wrong}; it takes {takes}"));
    }
}

fn shown(value: &str) -> String {
    format!("= '{}'", terminal::shortened(value, VALUE_SHOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, Vec<String>> {
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        Environment { variable, wrong: Vec::new() }.settings()
    }

    /// The refusal of one variable, which is one line that begins with its name.
    fn refusal(name: &str, value: &str) -> String {
        let lines = read(&[(name, value)]).unwrap_err();
        assert!(matches!(&lines[..], [line] if line.starts_with(&format!("{name} "))), "{name}={value}: {lines:?}");
        lines.concat()
    }

    #[test]
    fn nothing_is_said_of_good_values() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4317/")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4317"),
            ],
            &[("OTEL_TRACES_SAMPLER", "ParentBased_TraceIdRatio"), ("OTEL_TRACES_SAMPLER_ARG", "0.01")],
            &[("OTEL_TRACES_SAMPLER", "traceidratio")],
            &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,shop=7,")],
            &[("OTEL_RESOURCE_ATTRIBUTES", "region=eu,shop.name=%EC%BF%A0")],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "none")],
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "16")],
        ] {
            assert!(matches!(read(variables), Ok(Some(_))), "{variables:?}");
        }
        assert_eq!(read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "16")]).unwrap().unwrap().batch_max, 16);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_and_not_quoted() {
        for address in [
            "https://collector-7:99999",
            "collector-7",
            "http://",
            "http://collector-7:99999",
            "unix:///collector-7",
            "ftp://collector-7:4317",
            "http://shop:collector-7@host:4317",
            "http://collector-7 :4317",
            "http://host:4317/collector-7",
            "http://host:4317?collector-7",
        ] {
            for name in ENDPOINT {
                let refusal = refusal(name, address);
                assert!(refusal.contains(COLLECTOR) && !refusal.contains("collector-7"), "{refusal}");
            }
        }
    }

    #[test]
    fn an_address_without_a_scheme_asks_for_tls_unless_a_variable_says_otherwise() {
        for (address, insecure, endpoint) in [
            ("http://collector:4317", "false", "http://collector:4317/"),
            ("collector:4317", "true", "http://collector:4317/"),
            ("collector:4317", "false", "https://collector:4317/"),
            ("https://collector:4317", "true", "https://collector:4317/"),
        ] {
            let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", address), ("OTEL_EXPORTER_OTLP_INSECURE", insecure)];
            assert_eq!(read(&variables).unwrap().unwrap().endpoint.reveal(), endpoint, "{address}");
        }
    }

    #[test]
    fn a_misspelt_value_is_refused_with_the_right_ones() {
        for (name, value, right) in [
            ("OTEL_SDK_DISABLED", "yes", "false, true"),
            ("OTEL_TRACES_EXPORTER", "console", "otlp, none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "gprc", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "none"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "1", "false, true"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a number from 1 to 600000, such as 10000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer x", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=x", "name=value"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=%0a", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "shop", "name=value"),
            ("OTEL_TRACES_SAMPLER", "foo", "parentbased_always_on, "),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1%", "from 0 to 1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615", "to 1000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1", "from 1"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10000", "to 8192"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1s", "from 1"),
        ] {
            let refusal = refusal(name, value);
            assert!(refusal.contains(right), "{refusal}");
        }
        let all = [("OTEL_SDK_DISABLED", "yes"), ("OTEL_TRACES_SAMPLER", "foo"), ("OTEL_BSP_SCHEDULE_DELAY", "1s")];
        assert_eq!(read(&all).unwrap_err().len(), 3, "all at once");
    }

    #[test]
    fn a_ratio_that_is_none_is_refused() {
        for ratio in ["1%", "1.5", "-0.1", "NaN", "0,01", "often"] {
            let lines =
                read(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", ratio)]).unwrap_err();
            assert!(matches!(&lines[..], [line] if line.starts_with("OTEL_TRACES_SAMPLER_ARG = ")), "{lines:?}");
        }
    }

    #[test]
    fn the_sampler_is_the_one_named() {
        for (name, ratio, sampler) in [
            ("always_on", "", "AlwaysOn"),
            ("always_off", "", "AlwaysOff"),
            ("traceidratio", "0.25", "TraceIdRatioBased(0.25)"),
            ("parentbased_always_on", "", "ParentBased(AlwaysOn)"),
            ("parentbased_always_off", "", "ParentBased(AlwaysOff)"),
            ("parentbased_traceidratio", "0.25", "ParentBased(TraceIdRatioBased(0.25))"),
        ] {
            let variables = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", ratio)];
            let variables = if ratio.is_empty() { &variables[..1] } else { &variables };
            assert_eq!(format!("{:?}", read(variables).unwrap().unwrap().sampler), sampler);
        }
    }

    #[test]
    fn spans_can_be_switched_off() {
        for (name, value) in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(matches!(read(&[(name, value)]), Ok(None)));
            assert!(read(&[(name, value), ("OTEL_BSP_SCHEDULE_DELAY", "1s")]).is_err(), "what is wrong stays wrong");
        }
    }
}
