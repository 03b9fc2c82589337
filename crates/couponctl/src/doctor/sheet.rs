//! The findings, check by check. Pure.

use std::collections::HashMap;
use std::fmt::Display;

use serde::Serialize;
use time::OffsetDateTime;

/// Clocks that differ by more than this are worth a warning: campaigns open by them.
const CLOCK_MAX_SECONDS: f64 = 1.0;

/// The verdict of a check, from best to worst.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    /// The guarantees hold, but something is slower, or closer to a limit, than it need be.
    Warning,
    /// The server could not be asked, so the result is unknown.
    NotChecked,
    /// Claims are refused, or guarantees are broken.
    Wrong,
}

impl Verdict {
    /// The verdict as printed for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::NotChecked => "not checked",
            Self::Wrong => "WRONG",
        }
    }
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub server: &'static str,
    pub check: String,
    pub verdict: Verdict,
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The worst verdict of all.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// The findings about one server.
pub struct Sheet {
    server: &'static str,
    findings: Vec<Finding>,
}

impl Sheet {
    pub fn of(server: &'static str) -> Self {
        Self { server, findings: Vec::new() }
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    pub fn ok(&mut self, check: &str, found: &str) {
        self.add(check, Verdict::Ok, found, None);
    }

    pub fn warning(&mut self, check: &str, found: &str, remedy: &str) {
        self.add(check, Verdict::Warning, found, Some(remedy));
    }

    pub fn wrong(&mut self, check: &str, found: &str, remedy: &str) {
        self.add(check, Verdict::Wrong, found, Some(remedy));
    }

    /// Notes a check that could not be made, with the driver's own words.
    pub fn not_checked(&mut self, check: &str, why: &impl Display) {
        self.add(check, Verdict::NotChecked, &why.to_string(), None);
    }

    /// Notes a server that does not answer, or not to us.
    pub fn not_reached(&mut self, check: &str, why: &impl Display, remedy: &str) {
        self.add(check, Verdict::NotChecked, &why.to_string(), Some(remedy));
    }

    /// Checks the server's clock, which was read between two instants of this machine.
    pub fn clock(&mut self, server: OffsetDateTime, before: OffsetDateTime, after: OffsetDateTime) {
        let took: time::Duration = after - before;
        let off: time::Duration = server - (before + took / 2);
        let (ahead, slack) = (off.as_seconds_f64(), took.as_seconds_f64() / 2.0);
        let found = format!("{ahead:+.3} s from this machine's");
        if ahead.abs() <= CLOCK_MAX_SECONDS + slack {
            self.ok("clock", &found);
        } else {
            self.warning(
                "clock",
                &found,
                "let all machines follow the same time servers (NTP): campaigns open by their clocks",
            );
        }
    }

    fn add(&mut self, check: &str, verdict: Verdict, found: &str, remedy: Option<&str>) {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let remedy = remedy.map(line);
        self.findings.push(Finding {
            server: self.server,
            check: check.to_owned(),
            verdict,
            found: line(found),
            remedy,
        });
    }
}

/// The settings or the state of a server, by name.
#[derive(Debug, Default)]
pub struct Variables(HashMap<String, String>);

impl FromIterator<(String, String)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect())
    }
}

impl Variables {
    /// The value of a variable; empty if this server does not have it.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    /// Whether the variable exists and is anything but off.
    pub fn is_on(&self, name: &str) -> bool {
        !matches!(self.get(name).to_uppercase().as_str(), "" | "OFF" | "0" | "NO")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_outweighs_what_is_not_known() {
        let mut sheet = Sheet::of("a server");
        assert_eq!(worst(&[]), Verdict::Ok);
        sheet.warning("a", "", "");
        sheet.not_checked("b", &"");
        assert_eq!(worst(&sheet.findings), Verdict::NotChecked);
        sheet.wrong("c", "", "");
        sheet.ok("d", "");

        assert_eq!(worst(&sheet.into_findings()), Verdict::Wrong);
    }

    #[test]
    fn a_clock_that_is_off_is_reported_whichever_way() {
        let now = OffsetDateTime::UNIX_EPOCH;
        for (ahead, verdict) in
            [(0.2, Verdict::Ok), (-0.9, Verdict::Ok), (3.0, Verdict::Warning), (-3.0, Verdict::Warning)]
        {
            let mut sheet = Sheet::of("a server");
            sheet.clock(now + time::Duration::seconds_f64(ahead), now, now);
            assert_eq!(worst(&sheet.findings), verdict, "{ahead}");
        }
        let mut sheet = Sheet::of("a slow server");
        sheet.clock(now + time::Duration::seconds(5), now, now + time::Duration::seconds(10));
        assert_eq!(worst(&sheet.findings), Verdict::Ok, "nobody knows when in these ten seconds it read its clock");
    }
}
