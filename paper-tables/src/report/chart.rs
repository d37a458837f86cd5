//! A chart of the page, in the page's colours, with a legend and a table of its numbers.

use serde::Serialize;

use super::download::Download;
use crate::figures::{Bar, Bars, COLOURS, Chart, Curve, colour};
use crate::format::percent;

/// A chart and its numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ReportChart {
    /// The figure's id in the page.
    pub(super) id: String,
    title: String,
    /// Curves. Trusted: it contains no unescaped input. Empty for bars.
    pub(super) svg: String,
    /// Bars, group by group.
    groups: Vec<ReportGroup>,
    legend: Vec<Legend>,
    /// What a dot means, or an error bar.
    about: String,
    pub(super) heads: Vec<String>,
    pub(super) lines: Vec<Vec<String>>,
    downloads: Vec<Download>,
}

/// A curve, or the bars of one kind.
#[derive(Debug, Clone, Serialize)]
struct Legend {
    label: String,
    colour: String,
}

#[derive(Debug, Clone, Serialize)]
struct ReportGroup {
    label: String,
    bars: Vec<ReportBar>,
}

/// Lengths are shares of the whole width, in percent.
#[derive(Debug, Clone, Serialize)]
struct ReportBar {
    series: usize,
    label: String,
    value: String,
    width: String,
    /// Left end and width of the error bar; empty without one.
    low: String,
    between: String,
    spread: String,
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
        let marks = chart.curves.iter().any(|curve| !curve.marks.is_empty());
        Self {
            id: format!("figure-{}", chart.id),
            title: chart.title.clone(),
            svg: in_page_colours(&chart.page_svg()),
            groups: Vec::new(),
            legend: legend(chart.curves.iter().map(|curve| &curve.label)),
            about: if marks {
                format!("A dot is the {}.", chart.marked)
            } else {
                String::new()
            },
            heads: std::iter::once(chart.x.clone())
                .chain(chart.curves.iter().map(|curve| curve.label.clone()))
                .collect(),
            lines: xs.iter().step_by(step).map(line).collect(),
            downloads: Download::of_figure(chart),
        }
    }

    /// The same for bars.
    pub fn of_bars(bars: &Bars) -> Self {
        let text = |bar: &Option<Bar>| bar.map_or_else(|| "—".to_string(), |bar| percent(bar.value) + &spread(&bar));
        let line = |(group, values): &(String, Vec<Option<Bar>>)| {
            let values = values.iter().map(text);
            std::iter::once(group.clone()).chain(values).collect()
        };
        let all = || bars.groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let several = all().any(|bar| bar.deviation.is_some());
        let single = all().any(|bar| bar.deviation.is_none() && bar.interval.is_some());
        let about = match (several, single) {
            (true, true) => {
                "Lines: one standard deviation over seeds, or the 95 % interval over images of a single seed."
            }
            (true, false) => "Lines: one standard deviation over seeds.",
            (false, true) => "Lines: the 95 % interval over images, of a single seed.",
            (false, false) => "",
        };
        let group = |(label, values): &(String, Vec<Option<Bar>>)| ReportGroup {
            label: label.clone(),
            bars: values
                .iter()
                .enumerate()
                .filter_map(|(series, bar)| Some(report_bar(series, &bars.series, (*bar)?)))
                .collect(),
        };
        Self {
            id: format!("figure-{}", bars.id),
            title: bars.title.clone(),
            svg: String::new(),
            groups: bars.groups.iter().map(group).collect(),
            legend: legend(&bars.series),
            about: about.to_string(),
            heads: std::iter::once("defense".to_string())
                .chain(bars.series.iter().cloned())
                .collect(),
            lines: bars.groups.iter().map(line).collect(),
            downloads: Download::of_figure(bars),
        }
    }

    /// The figure's id in the page if it shows this curve.
    pub fn shows(&self, curve: &str) -> Option<&str> {
        self.legend.iter().any(|entry| entry.label == curve).then_some(&self.id)
    }

    /// What it shows.
    pub fn title(&self) -> &str {
        &self.title
    }
}

fn report_bar(series: usize, names: &[String], bar: Bar) -> ReportBar {
    let clipped = |value: f64| value.clamp(0.0, 100.0);
    let (low, between) = bar.ends().map_or_else(Default::default, |(low, high)| {
        let (low, high) = (clipped(low), clipped(high));
        (format!("{low:.2}"), format!("{:.2}", high - low))
    });
    ReportBar {
        series,
        label: names.get(series).cloned().unwrap_or_default(),
        value: percent(bar.value),
        width: format!("{:.2}", clipped(bar.value)),
        low,
        between,
        spread: spread(&bar),
    }
}

fn spread(bar: &Bar) -> String {
    match (bar.deviation, bar.interval) {
        (Some(deviation), _) => format!(" ± {}", percent(deviation)),
        (None, Some((low, high))) => format!(" [{low:.1}, {high:.1}]"),
        (None, None) => String::new(),
    }
}

fn legend<'a>(labels: impl IntoIterator<Item = &'a String>) -> Vec<Legend> {
    let labels = labels.into_iter().enumerate();
    labels
        .map(|(number, label)| Legend {
            label: label.clone(),
            colour: in_page_colours(&colour(COLOURS[number % COLOURS.len()])),
        })
        .collect()
}

/// Black parts of a figure take the text's colour, white parts the page's.
fn in_page_colours(svg: &str) -> String {
    svg.replace("#000000", "currentColor").replace("#FFFFFF", "none")
}
