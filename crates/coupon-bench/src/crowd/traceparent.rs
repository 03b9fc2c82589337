//! Which claims of a crowd are traced: the bench decides as a caller, so that it knows the traces of its run and the
//! services need not be started again for another ratio.

use hyper::header::{HeaderName, HeaderValue};
use rand::RngExt;

/// Reads a share of claims, from 0 to 1.
///
/// # Errors
/// It is anything else.
pub fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(String::from("must be a number from 0 to 1")),
    }
}

/// A claim's place in a trace of its own.
#[derive(Clone, Copy, Debug)]
pub struct Traceparent {
    trace: u128,
    span: u64,
    /// Whether the services are to record it.
    pub is_sampled: bool,
}

impl Traceparent {
    /// Creates one that is sampled with this probability.
    pub fn random(ratio: f64) -> Self {
        let mut rng = rand::rng();
        // No id may be zero.
        Self {
            trace: rng.random_range(1..=u128::MAX),
            span: rng.random_range(1..=u64::MAX),
            is_sampled: rng.random_bool(ratio),
        }
    }

    /// The id by which Jaeger finds the trace.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The header that the services read: w3.org/TR/trace-context.
    pub fn header(&self) -> anyhow::Result<(HeaderName, HeaderValue)> {
        let flags = u8::from(self.is_sampled);
        let value = HeaderValue::from_str(&format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span))?;
        Ok((HeaderName::from_static("traceparent"), value))
    }
}
