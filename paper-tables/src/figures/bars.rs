//! Bars in groups.

use std::fmt::Write as _;

use super::figure::{COLOURS, Figure, document};
use super::scene::{self, Anchor, Colour, Scene, Words};
use super::{svg, tikz};
use crate::latex::escape;
use crate::records::Records;

/// Bars in groups, from 0 to 100.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// The name in files: letters, digits and hyphens.
    pub id: String,
    /// The title.
    pub title: String,
    /// What the height is.
    pub y: String,
    /// What the bars of a group are.
    pub series: Vec<String>,
    /// Label of each group and its bars, one for each of the series; `None`: there is none.
    pub groups: Vec<(String, Vec<Option<Bar>>)>,
}

/// A bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Its height.
    pub value: f64,
    /// The standard deviation of the height, over several seeds.
    pub deviation: Option<f64>,
    /// The ends of the 95 % interval of the height, of one seed over images.
    pub interval: Option<(f64, f64)>,
}

impl Bar {
    /// The ends of the error bar: one standard deviation, or else the interval.
    pub(crate) fn ends(&self) -> Option<(f64, f64)> {
        let around = |deviation: f64| ((self.value - deviation).max(0.0), (self.value + deviation).min(100.0));
        self.deviation.map(around).or(self.interval)
    }
}

/// Of the plot, in pixels.
const PLOT: [f64; 4] = [56.0, 40.0, 560.0, 300.0];
const LEGEND: f64 = 110.0;

impl Bars {
    fn scene(&self) -> Scene<'_> {
        let [left, top, width, height] = PLOT;
        // Names of groups are upright where they would run into each other.
        let longest = self
            .groups
            .iter()
            .map(|(label, _)| scene::width(label, 12))
            .fold(0.0, f64::max);
        let pitch = width / self.groups.len().max(1) as f64;
        let upright = longest > pitch;
        let foot = if upright { longest.min(160.0) + 16.0 } else { 30.0 };
        let mut scene = Scene::new(left + width + LEGEND, top + height + foot);
        scene.words(Words::new([left + width / 2.0, 18.0], 16, Anchor::Middle, &self.title));
        let y = |value: f64| top + height * (1.0 - value.clamp(0.0, 100.0) / 100.0);
        for tick in (0..=100).step_by(20) {
            let at = y(f64::from(tick));
            scene.fill([left, at - 0.25, width, 0.5], (221, 221, 221));
            scene.words(Words::new([left - 6.0, at], 12, Anchor::End, &tick.to_string()));
        }
        scene.words(Words::new([14.0, top + height / 2.0], 13, Anchor::Middle, &self.y).upright());
        let bar_width = 0.8 * pitch / self.series.len().max(1) as f64;
        for (group, (label, bars)) in self.groups.iter().enumerate() {
            let middle = left + pitch * (group as f64 + 0.5);
            let first = middle - 0.4 * pitch;
            for (number, bar) in bars.iter().enumerate() {
                let Some(bar) = bar else { continue };
                let (x, head) = (first + bar_width * number as f64, y(bar.value));
                scene.tile([x, head, bar_width, top + height - head], colour_of(number));
                if let Some((low, high)) = bar.ends() {
                    let centre = x + bar_width / 2.0;
                    scene.line([centre, y(low), centre, y(high)], 1.0);
                }
            }
            let below = [middle, top + height + 12.0];
            scene.words(if upright {
                Words::new(below, 12, Anchor::End, label).upright()
            } else {
                Words::new(below, 12, Anchor::Middle, label)
            });
        }
        scene.line([left, top + height, left + width, top + height], 1.0);
        for (number, series) in self.series.iter().enumerate() {
            let at = top + 8.0 + 20.0 * number as f64;
            scene.fill([left + width + 12.0, at - 6.0, 12.0, 12.0], colour_of(number));
            scene.words(Words::new([left + width + 30.0, at], 13, Anchor::Start, series));
        }
        scene
    }
}

fn colour_of(series: usize) -> Colour {
    COLOURS[series % COLOURS.len()]
}

impl Figure for Bars {
    fn id(&self) -> &str {
        &self.id
    }

    fn csv(&self) -> String {
        let mut records = Records::new(["chart", "group", "bar", "value", "sd", "low", "high"]);
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
        for (group, bars) in &self.groups {
            for (series, bar) in self.series.iter().zip(bars) {
                let value = number(bar.map(|bar| bar.value));
                let deviation = number(bar.and_then(|bar| bar.deviation));
                let ends = bar.and_then(|bar| bar.interval);
                let (low, high) = (number(ends.map(|ends| ends.0)), number(ends.map(|ends| ends.1)));
                records.add([&self.id, group, series, &value, &deviation, &low, &high]);
            }
        }
        records.finish()
    }

    fn svg(&self) -> String {
        svg::draw(&self.scene())
    }

    /// An axis of pgfplots, which a paper can change, rather than the scene's lines.
    fn tex(&self) -> String {
        let labels: Vec<String> = self
            .groups
            .iter()
            .map(|(label, _)| format!("{{{}}}", escape(label)))
            .collect();
        let ticks: Vec<String> = (0..self.groups.len()).map(|group| group.to_string()).collect();
        let mut text = format!(
            "\\begin{{tikzpicture}}\n\\begin{{axis}}[\n  title={{{}}}, ylabel={{{}}},\n  width=12cm, height=7cm, ybar, \
             bar width={{{:.2}cm}}, ymin=0, ymax=100, xmin=-0.6, xmax={:.1},\n  xtick={{{}}}, xticklabels={{{}}}, \
             x tick label style={{rotate=45, anchor=east}},\n  ymajorgrids, grid style={{black!10}},\n  \
             legend pos=outer north east, legend cell align=left, legend style={{draw=none, font=\\small}},\n]\n",
            escape(&self.title),
            escape(&self.y),
            7.0 / (self.groups.len().max(1) * self.series.len().max(1)) as f64,
            self.groups.len().max(1) as f64 - 0.4,
            ticks.join(","),
            labels.join(","),
        );
        for (number, series) in self.series.iter().enumerate() {
            let points = self.groups.iter().enumerate().filter_map(|(group, (_, bars))| {
                let bar = bars.get(number).copied().flatten()?;
                let error = match (bar.deviation, bar.interval) {
                    (Some(sd), _) => format!(" +- (0,{sd:.4})"),
                    // The two halves of an interval differ.
                    (None, Some((low, high))) => {
                        format!(" += (0,{:.4}) -= (0,{:.4})", high - bar.value, bar.value - low)
                    }
                    (None, None) => String::new(),
                };
                Some(format!("({group},{:.4}){error}", bar.value))
            });
            writeln!(
                text,
                "\\addplot[fill={}, draw=white, error bars/.cd, y dir=both, y explicit, error bar style={{black}}] \
                 coordinates {{{}}};\n\\addlegendentry{{{}}}",
                tikz::colour(colour_of(number)),
                points.collect::<Vec<_>>().join(" "),
                escape(series)
            )
            .expect("writing to a string succeeds");
        }
        document(&(text + "\\end{axis}\n\\end{tikzpicture}\n"))
    }
}
