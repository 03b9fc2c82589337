//! The statistics used for all figures: medians of turns, quantiles of latencies.

use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Latencies are kept in microseconds with this many significant digits.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies above an hour are counted as one hour.
const LATENCY_MAX: Duration = Duration::from_hours(1);

/// The median of some values: the upper of the two in the middle, or NaN if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Latencies of any number of claims, in the same memory. In JSON, each is in microseconds with the number of times it
/// was seen, as in `1520x3 1600x12`, so that percentiles over several turns can be computed from the latencies and are
/// never averages of percentiles.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^([0-9]+x[0-9]+( [0-9]+x[0-9]+)*)?$"))]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Creates an empty set of latencies.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, micros(LATENCY_MAX), SIGNIFICANT_DIGITS)?))
    }

    /// Merges the latencies of several turns, as if they came from one.
    pub fn of_all<'a>(turns: impl IntoIterator<Item = &'a Self>) -> anyhow::Result<Self> {
        turns.into_iter().try_fold(Self::new()?, |mut all, Self(turn)| {
            all.0.add(turn)?;
            Ok(all)
        })
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(micros(latency));
    }

    /// The latency, in milliseconds, that this share of the claims did not exceed.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
    }
}

impl From<Latencies> for String {
    fn from(Latencies(histogram): Latencies) -> Self {
        let seen = histogram.iter_recorded();
        let seen = seen.map(|seen| format!("{}x{}", seen.value_iterated_to(), seen.count_since_last_iteration()));
        seen.collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<String> for Latencies {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let mut latencies = Self::new()?;
        for seen in text.split_whitespace() {
            let (micros, count) = seen.split_once('x').context("a latency is like 1520x3")?;
            latencies.0.saturating_record_n(micros.parse()?, count.parse()?);
        }
        Ok(latencies)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([3.0, 1.0, 2.0, 4.0]).to_bits(), 3.0_f64.to_bits());
        assert!(median([]).is_nan());
    }

    #[test]
    fn turns_are_merged_as_they_were_seen_and_survive_a_report() {
        let turn = |ms: &[u64]| {
            let mut latencies = Latencies::new().unwrap();
            for ms in ms {
                latencies.record(Duration::from_millis(*ms));
            }
            latencies
        };

        let all = Latencies::of_all(&[turn(&[1; 98]), turn(&[1_000, 2_000])]).unwrap();
        let read: Latencies = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();

        for latencies in [&all, &read] {
            assert!((latencies.quantile_ms(0.98) - 1.0).abs() < 0.01);
            assert!((latencies.quantile_ms(0.99) / 1_000.0 - 1.0).abs() < 0.001);
        }
        assert!(serde_json::from_str::<Latencies>("\"1x2 three\"").is_err());
    }

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        for ms in 1..=1_000 {
            latencies.record(Duration::from_millis(ms));
        }

        assert!((latencies.quantile_ms(0.5) / 500.0 - 1.0).abs() < 0.001);
        assert!((latencies.quantile_ms(0.99) / 990.0 - 1.0).abs() < 0.001);
    }
}
