//! What the `OTEL_*` variables say about spans, read once when a service starts.
//!
//! Invariant: no value ends a service or is passed over in silence. One that cannot be used is told in one line, which names
//! the variable and what it takes; in its place holds what the specification of OpenTelemetry says for a variable that is
//! not set. Without an address that can be used no spans are sent. No line quotes an address or a header: both may hold a
//! secret.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;
use url::Url;

/// Where collectors listen for OTLP over gRPC.
const COLLECTOR: &str = "http://localhost:4317";

const SAMPLERS: [&str; 6] = [
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "always_on",
    "always_off",
    "traceidratio",
];

/// How spans are made and sent.
#[derive(Debug)]
pub struct Settings {
    /// The collector, by HTTP without TLS.
    pub endpoint: String,
    /// How long the collector may take to answer.
    pub timeout: Duration,
    /// Which claims are traced.
    pub sampler: Sampler,
    /// Finished spans that wait for the collector, about a kilobyte each, and half of one even while none do. The default
    /// of the SDK holds 50 ms of a crowd of which each claim is traced.
    pub queue_max: usize,
    /// Spans in one request to the collector, which takes 4 MiB by default; at most `queue_max`.
    pub batch_max: usize,
    /// How often spans are sent: by default so often that who has just claimed finds the trace.
    pub send_every: Duration,
}

/// Reads the environment of this process and logs what cannot be used. None: no spans are to be sent.
pub fn read() -> Option<Settings> {
    let mut environment = Environment { variable, complaints: Vec::new() };
    let settings = environment.settings();
    for complaint in environment.complaints {
        tracing::warn!("{complaint}");
    }
    settings
}

/// A variable that is set; an empty one counts as not set.
#[expect(
    clippy::disallowed_methods,
    reason = "these are OpenTelemetry's settings, which have no flags and are the same for every service"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

struct Environment<F> {
    variable: F,
    complaints: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn settings(&mut self) -> Option<Settings> {
        if self.one_of(&["OTEL_SDK_DISABLED"], &["false", "true"]) == "true"
            || self.one_of(&["OTEL_TRACES_EXPORTER"], &["otlp", "none"]) == "none"
        {
            return None;
        }
        self.one_of(&["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"], &["grpc"]);
        self.one_of(&["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"], &["none"]);
        self.pairs(&["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]);
        self.pairs(&["OTEL_RESOURCE_ATTRIBUTES"]);
        let timeout = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        let timeout = self.number(&timeout, 1..=600_000, 10_000);
        let queue_max = self.number(&["OTEL_BSP_MAX_QUEUE_SIZE"], 1..=1_000_000, 8_192);
        let batch_max = self.number(&["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], 1..=1_000_000, 2_048);
        let send_every = self.number(&["OTEL_BSP_SCHEDULE_DELAY"], 1..=3_600_000, 1_000);
        let sampler = self.sampler();
        Some(Settings {
            endpoint: self.endpoint()?,
            timeout: Duration::from_millis(timeout),
            sampler,
            queue_max: usize::try_from(queue_max).unwrap_or(usize::MAX),
            batch_max: usize::try_from(batch_max.min(queue_max)).unwrap_or(usize::MAX),
            send_every: Duration::from_millis(send_every),
        })
    }

    fn endpoint(&mut self) -> Option<String> {
        let insecure = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
        let insecure = self.one_of(&insecure, &["false", "true"]) == "true";
        let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let Some((name, value)) = self.set(&endpoint) else { return Some(String::from(COLLECTOR)) };
        match collector(&value, insecure) {
            Ok(url) => Some(url.into()),
            Err(wrong) => {
                self.complain(name, &format!("{wrong}. No spans are sent. It takes an address like {COLLECTOR}"));
                None
            }
        }
    }

    fn sampler(&mut self) -> Sampler {
        const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
        let name = self.one_of(&["OTEL_TRACES_SAMPLER"], &SAMPLERS);
        let ratio = self.set(&[RATIO]).map(|(_, ratio)| ratio);
        let root = match name.trim_start_matches("parentbased_") {
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(self.ratio(RATIO, ratio.as_deref())),
            _ => Sampler::AlwaysOn,
        };
        if ratio.is_some() && !name.ends_with("traceidratio") {
            self.complain(
                RATIO,
                &format!("has no effect: the sampler {name} takes no ratio, parentbased_traceidratio does"),
            );
        }
        if name.starts_with("parentbased_") { Sampler::ParentBased(Box::new(root)) } else { root }
    }

    /// The part of all traces to record.
    fn ratio(&mut self, name: &str, value: Option<&str>) -> f64 {
        match value.map(str::parse) {
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => return ratio,
            Some(_) => self.complain(name, &unknown(value.unwrap_or_default(), "a number from 0 to 1", 1)),
            None => self.complain(name, "is not set, so every trace is recorded. It takes a number from 0 to 1"),
        }
        1.0
    }

    /// The first of some variables that is set, and its value.
    fn set(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, (self.variable)(name)?)))
    }

    /// A variable that takes certain words, in any case; the first of them is the default.
    fn one_of(&mut self, names: &[&'static str], words: &[&'static str]) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        let Some((name, value)) = self.set(names) else { return default };
        let known = words.iter().find(|word| value.eq_ignore_ascii_case(word));
        if known.is_none() {
            self.complain(name, &unknown(&value, words.join(", "), default));
        }
        known.copied().unwrap_or(default)
    }

    fn number(&mut self, names: &[&'static str], range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some((name, value)) = self.set(names) else { return default };
        let number = u64::from_str(&value).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let takes = format!("a number from {} to {}", range.start(), range.end());
            self.complain(name, &unknown(&value, takes, default));
        }
        number.unwrap_or(default)
    }

    /// Checks a list that the SDK reads itself, which leaves out what it cannot read.
    fn pairs(&mut self, names: &[&'static str]) {
        let Some((name, value)) = self.set(names) else { return };
        let is_pair = |part: &str| {
            part.split_once('=').is_some_and(|(key, value)| !key.trim().is_empty() && !value.trim().is_empty())
        };
        let wrong = value.split_terminator(',').filter(|part| !is_pair(part)).count();
        if wrong > 0 {
            self.complain(name, &format!("leaves out {wrong} of its parts. It takes name=value,name=value"));
        }
    }

    fn complain(&mut self, name: &str, wrong: &str) {
        self.complaints.push(format!("{name}: {wrong}"));
    }
}

fn unknown(value: &str, takes: impl Display, default: impl Display) -> String {
    format!("{value:?} is not known, so {default} holds. It takes {takes}")
}

/// The collector at an address, or what is wrong with that. Whether one without a scheme means TLS, the variable for it
/// says; it does by default.
fn collector(value: &str, insecure: bool) -> Result<Url, String> {
    let address = match value.contains("://") {
        true => value.to_owned(),
        false if insecure => format!("http://{value}"),
        false => return Err(String::from("the address has no scheme")),
    };
    let url = Url::parse(&address).map_err(|error| format!("the address cannot be read ({error})"))?;
    match url.scheme() {
        "http" if url.username().is_empty() && url.password().is_none() => Ok(url),
        "http" => Err(String::from("the address has a user or password, which OTLP does not take: use headers")),
        "https" => Err(String::from("the address is https, but services send without TLS, over a private network")),
        _ => Err(String::from("the address is not http")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>) {
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let mut environment = Environment { variable, complaints: Vec::new() };
        let settings = environment.settings();
        (settings, environment.complaints)
    }

    /// What is said of one variable, which is one line that begins with its name.
    fn complaint(name: &str, value: &str) -> String {
        let (_, complaints) = read(&[(name, value)]);
        assert!(
            complaints.len() == 1 && complaints[0].starts_with(&format!("{name}: ")),
            "{name}={value}: {complaints:?}"
        );
        complaints[0].clone()
    }

    #[test]
    fn nothing_is_said_of_good_values() {
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4317/")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4317"),
            ],
            &[("OTEL_TRACES_SAMPLER", "ParentBased_TraceIdRatio"), ("OTEL_TRACES_SAMPLER_ARG", "0.01")],
            &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,shop=7,")],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "none")],
        ] {
            let (settings, complaints) = read(variables);
            assert!(settings.is_some() && complaints.is_empty(), "{variables:?}: {complaints:?}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_sends_no_spans_and_is_not_quoted() {
        for address in [
            "https://collector-7:4317",
            "collector-7:4317",
            "collector-7",
            "http://",
            "http://collector-7:99999",
            "unix:///collector-7",
            "ftp://collector-7:4317",
            "http://shop:collector-7@host:4317",
            "http://collector-7 :4317",
        ] {
            for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
                assert!(read(&[(name, address)]).0.is_none(), "{address}");
                let complaint = complaint(name, address);
                assert!(complaint.contains(COLLECTOR) && !complaint.contains("collector-7"), "{complaint}");
            }
        }
    }

    #[test]
    fn a_misspelt_value_is_told_with_the_right_ones() {
        for (name, value, right) in [
            ("OTEL_SDK_DISABLED", "yes", "false, true"),
            ("OTEL_TRACES_EXPORTER", "console", "otlp, none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "gprc", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "none"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "1", "false, true"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a number from 1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer x", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "shop", "name=value"),
            ("OTEL_TRACES_SAMPLER", "foo", "parentbased_always_on, "),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01", "parentbased_traceidratio"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615", "to 1000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1", "from 1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1s", "from 1"),
        ] {
            assert!(read(&[(name, value)]).0.is_some(), "{name}={value}: spans are sent all the same");
            let complaint = complaint(name, value);
            assert!(complaint.contains(right), "{complaint}");
        }
    }

    #[test]
    fn a_ratio_that_is_none_records_every_trace() {
        for ratio in ["1%", "1.5", "-0.1", "NaN", "0,01", "often"] {
            let (settings, complaints) =
                read(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", ratio)]);
            assert_eq!(format!("{:?}", settings.unwrap().sampler), "TraceIdRatioBased(1.0)");
            assert!(complaints.len() == 1 && complaints[0].starts_with("OTEL_TRACES_SAMPLER_ARG: "), "{complaints:?}");
        }

        let (_, complaints) = read(&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")]);
        assert!(complaints.len() == 1 && complaints[0].contains("is not set"), "{complaints:?}");
    }

    #[test]
    fn the_sampler_is_the_one_named() {
        for (name, sampler) in [
            ("always_on", "AlwaysOn"),
            ("always_off", "AlwaysOff"),
            ("traceidratio", "TraceIdRatioBased(0.25)"),
            ("parentbased_always_on", "ParentBased(AlwaysOn)"),
            ("parentbased_always_off", "ParentBased(AlwaysOff)"),
            ("parentbased_traceidratio", "ParentBased(TraceIdRatioBased(0.25))"),
        ] {
            let (settings, _) = read(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", "0.25")]);
            assert_eq!(format!("{:?}", settings.unwrap().sampler), sampler);
        }
    }

    #[test]
    fn spans_switched_off_need_no_address() {
        for (name, value) in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            let (settings, complaints) = read(&[(name, value), ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")]);
            assert!(settings.is_none() && complaints.is_empty(), "{complaints:?}");
        }
    }
}
