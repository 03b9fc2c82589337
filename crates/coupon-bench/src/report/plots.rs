//! Curves as SVG, without colours: those come from the style sheet, which handles light and dark.

use anyhow::Context;
use poloto::build::plot;

use crate::statistics::Latencies;

/// The most points in a curve, so that a page stays small.
const POINTS: usize = 120;

/// The shares of a curve of percentiles, and their labels.
const SHARES: [(f64, &str); 6] =
    [(0.0, "0"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %"), (0.99999, "99.999 %")];

/// A curve with its name.
pub type Curve = (String, Vec<[f64; 2]>);

/// Curves over one pair of axes.
pub fn curves(title: &str, x: &str, y: &str, curves: Vec<Curve>) -> anyhow::Result<String> {
    let lines = curves.into_iter().map(|(name, points)| plot(name).line(points));
    let frame = poloto::frame_build().data(poloto::plots!(poloto::build::origin(), lines));
    frame.build_and_label((title, x, y)).append_to(poloto::header()).render_string().context("a plot")
}

/// Plots latencies over the share of claims that they cover, on an axis where each further nine has the same width.
pub fn percentiles(title: &str, all: Vec<(String, Latencies)>) -> anyhow::Result<String> {
    let curve = |(name, latencies): (String, Latencies)| {
        let at = |step: usize| {
            let nines = 4.0 * step as f64 / POINTS as f64;
            [nines, latencies.quantile_ms(1.0 - 10.0_f64.powf(-nines))]
        };
        plot(name).line((0..=POINTS).map(at).collect::<Vec<_>>())
    };
    let ticks = poloto::ticks::from_iter((0..=4).map(f64::from)).with_tick_fmt(|nines: &f64| {
        let nearest = |(share, _): &&(f64, &str)| (-(1.0 - share).log10() - nines).abs() < 0.5;
        SHARES.iter().find(nearest).map_or("", |(_, name)| *name)
    });
    let lines = all.into_iter().map(curve);
    let frame = poloto::frame_build().data(poloto::plots!(poloto::build::origin(), lines)).map_xticks(|_| ticks);
    frame
        .build_and_label((title, "share of the claims", "ms"))
        .append_to(poloto::header())
        .render_string()
        .context("a plot")
}

/// Thins a curve, keeping its last point.
pub fn thinned(points: Vec<(f64, f64)>) -> Vec<[f64; 2]> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate().filter(|(place, _)| place % every == 0 || *place == last);
    kept.map(|(_, (x, y))| [x, y]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_ends() {
        let thin = thinned((0..10_001).map(|n| (f64::from(n), 1.0)).collect());

        assert!(thin.len() <= POINTS + 1, "{}", thin.len());
        assert_eq!((thin.first(), thin.last()), (Some(&[0.0, 1.0]), Some(&[10_000.0, 1.0])));
    }
}
