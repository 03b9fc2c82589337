//! The statistics of all figures: medians of turns, quantiles of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies are kept in microseconds with this many significant digits.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies above an hour are counted as one hour.
const LATENCY_MAX: Duration = Duration::from_hours(1);

/// The middle of some values: the upper one of two, and NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Latencies of any number of claims, in the same memory.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Creates one that is empty.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, micros(LATENCY_MAX), SIGNIFICANT_DIGITS)?))
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(micros(latency));
    }

    /// The latency, in milliseconds, that this share of the claims did not exceed.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
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
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[3.0, 1.0, 2.0, 4.0]).to_bits(), 3.0_f64.to_bits());
        assert!(median(&[]).is_nan());
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
