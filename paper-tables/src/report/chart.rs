//! A chart of the page, in the page's colours, with a table of its numbers.

use serde::Serialize;

use crate::figures::{Bar, Bars, Chart, Curve, Figure};
use crate::format::percent;

/// A chart and its numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ReportChart {
    title: String,
    /// Trusted: it contains no unescaped input.
    pub(super) svg: String,
    pub(super) heads: Vec<String>,
    pub(super) lines: Vec<Vec<String>>,
}

impl ReportChart {
    /// A chart in the colours of the page, and its numbers.
    pub fn new(chart: &Chart) -> Self {
        let mut xs: Vec<f64> = chart
            .curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(|at| at.0))
            .collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        // Numbers for readers who cannot see the curves; nobody reads a list of thousands of points.
        const LINES: usize = 60;
        let step = xs.len().div_ceil(LINES).max(1);
        let line = |x: &f64| {
            let y = |curve: &Curve| {
                let point = curve.points.iter().find(|at| at.0 == *x);
                point.map_or_else(|| "—".to_string(), |at| percent(at.1))
            };
            std::iter::once(x.to_string())
                .chain(chart.curves.iter().map(y))
                .collect()
        };
        Self {
            title: chart.title.clone(),
            svg: in_page_colours(&chart.svg()),
            heads: std::iter::once(chart.x.clone())
                .chain(chart.curves.iter().map(|curve| curve.label.clone()))
                .collect(),
            lines: xs.iter().step_by(step).map(line).collect(),
        }
    }

    /// The same for bars.
    pub fn of_bars(bars: &Bars) -> Self {
        let line = |(group, values): &(String, Vec<Option<Bar>>)| {
            let values = values
                .iter()
                .map(|bar| bar.map_or_else(|| "—".to_string(), |bar| percent(bar.value)));
            std::iter::once(group.clone()).chain(values).collect()
        };
        Self {
            title: bars.title.clone(),
            svg: in_page_colours(&bars.svg()),
            heads: std::iter::once("defense".to_string())
                .chain(bars.series.iter().cloned())
                .collect(),
            lines: bars.groups.iter().map(line).collect(),
        }
    }
}

/// Black parts of a figure take the text's colour, white parts the page's.
fn in_page_colours(svg: &str) -> String {
    svg.replace("#000000", "currentColor").replace("#FFFFFF", "none")
}
