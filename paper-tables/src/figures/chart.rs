//! Curves that share their axes.

use std::fmt::Write as _;

use plotters::coord::Shift;
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

use super::figure::{COLOURS, Figure, document};
use super::scene::Colour;
use super::{svg, tikz};
use crate::format::visible;
use crate::latex::escape;
use crate::records::Records;

/// A chart of curves that share their axes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chart {
    /// The name in files: letters, digits and hyphens.
    pub id: String,
    /// The title.
    pub title: String,
    /// What x is.
    pub x: String,
    /// What y is.
    pub y: String,
    /// Whether x is drawn by its logarithm.
    pub logarithmic: bool,
    /// One for each defense.
    pub curves: Vec<Curve>,
    /// The range of y; 0 to 100 unless given.
    pub range: Option<(f64, f64)>,
    /// The meaning of marks, if there are any.
    pub marked: String,
}

/// x and y.
pub type Point = (f64, f64);

/// One curve.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// The defense's label.
    pub label: String,
    /// Its points, by x.
    pub points: Vec<Point>,
    /// The standard deviation of y at each point; empty if no point has one, NaN for a point without one.
    pub deviations: Vec<f64>,
    /// Points that are marked, whether on the curve or not.
    pub marks: Vec<Point>,
}

/// How a chart is laid out.
struct Layout {
    size: (u32, u32),
    /// The width of the legend, which has room for the longest name of a defense. `None`: title and legend are elsewhere.
    legend: Option<u32>,
    /// The size of the text along the axes, and room for it below and to the left.
    text: Option<(u32, u32, u32)>,
    /// The colour of each curve.
    colour: fn(usize) -> RGBColor,
}

/// In a file.
const FILE: Layout = Layout {
    size: (720, 440),
    legend: Some(170),
    text: None,
    colour: colour_of,
};
/// In a page, which has its own title and legend. A phone shows it at about three quarters of its size.
const PAGE: Layout = Layout {
    size: (480, 320),
    legend: None,
    text: Some((20, 56, 68)),
    colour: placeholder,
};
/// The dashes of curves in LaTeX, for those who print without colours.
const DASHES: [&str; 4] = ["solid", "densely dashed", "densely dotted", "dashdotted"];

impl Curve {
    /// The deviation at a point, if it has one.
    fn deviation(&self, point: usize) -> Option<f64> {
        self.deviations.get(point).copied().filter(|sd| sd.is_finite())
    }
}

impl Chart {
    /// The ends of x, and of y.
    fn ends(&self) -> ([f64; 2], [f64; 2]) {
        let all = || {
            self.curves
                .iter()
                .flat_map(|curve| curve.points.iter().chain(&curve.marks))
        };
        let drawn = all().map(|(x, _)| *x).filter(|x| !self.logarithmic || *x > 0.0);
        let most = drawn.clone().fold(f64::NEG_INFINITY, f64::max);
        // Values without a logarithm are drawn at the left edge.
        let smallest = drawn.fold(f64::INFINITY, f64::min);
        let least = match (self.logarithmic, all().any(|(x, _)| *x <= 0.0)) {
            (true, true) => smallest.min(1.0),
            (true, false) => smallest,
            (false, _) => 0.0,
        };
        let x = if !least.is_finite() {
            [1.0, 2.0]
        } else if most > least {
            [least, most]
        } else {
            [least, least + 1.0]
        };
        let (low, high) = self.range.unwrap_or((0.0, 100.0));
        (x, [low, if high > low { high } else { low + 1.0 }])
    }

    /// The curves in the colours of a page, each in a class of its own: `curve k0`, `curve k1`.
    pub(crate) fn page_svg(&self) -> String {
        let mut text = String::new();
        self.draw(&mut text, &PAGE).expect(WRITES);
        for number in 0..self.curves.len() {
            let drawn = svg::colour(tuple(placeholder(number)));
            let shown = svg::colour(COLOURS[number % COLOURS.len()]);
            for what in ["stroke", "fill"] {
                text = text.replace(
                    &format!("{what}=\"{drawn}\""),
                    &format!("class=\"curve k{number}\" {what}=\"{shown}\""),
                );
            }
        }
        visible(&text)
    }

    fn draw(&self, text: &mut String, layout: &Layout) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(text, layout.size).into_drawing_area();
        root.fill(&WHITE)?;
        let (plot, legend) = match layout.legend {
            Some(width) => {
                let root = root.titled(&self.title, ("sans-serif", 18))?;
                let (plot, legend) = root.split_horizontally(layout.size.0 - width);
                (plot, Some(legend))
            }
            None => (root.clone(), None),
        };
        let ([least, most], [low, high]) = self.ends();
        let (size, below, beside) = layout.text.unwrap_or((12, 40, 50));
        let mut builder = ChartBuilder::on(&plot);
        builder.margin(8).x_label_area_size(below).y_label_area_size(beside);
        let label = |x: &f64| format!("{}", (x * 1e4).round() / 1e4);
        let value = |y: &f64| {
            if high - low > 5.0 {
                format!("{y:.0}")
            } else {
                format!("{y:.2}")
            }
        };
        let chosen = self.is_chosen();
        let mut ticks: Vec<f64> = self
            .curves
            .iter()
            .flat_map(|curve| &curve.points)
            .map(|point| point.0)
            .collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        // Each kind of axis has a type.
        macro_rules! curves {
            ($chart:expr) => {{
                let mut chart = $chart;
                let mut mesh = chart.configure_mesh();
                if layout.text.is_some() {
                    mesh.label_style(("sans-serif", size))
                        .axis_desc_style(("sans-serif", size))
                        .x_labels(6)
                        .y_labels(6);
                }
                mesh.light_line_style(WHITE)
                    .x_desc(&self.x)
                    .y_desc(&self.y)
                    .x_label_formatter(&label)
                    .y_label_formatter(&value)
                    .draw()?;
                for (number, curve) in self.curves.iter().enumerate() {
                    let colour = (layout.colour)(number);
                    let at = |&(x, y): &Point| (x.max(least), y);
                    let points = curve.points.iter().map(at);
                    chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
                    for (place, point) in curve.points.iter().enumerate() {
                        let (x, y) = at(point);
                        if let Some(deviation) = curve.deviation(place) {
                            let ends = [(y - deviation).max(low), (y + deviation).min(high)];
                            chart.draw_series([PathElement::new(ends.map(|y| (x, y)), colour.stroke_width(1))])?;
                        }
                        if chosen {
                            chart.draw_series([Circle::new((x, y), 3, colour.filled())])?;
                        }
                    }
                    let marks = curve
                        .marks
                        .iter()
                        .map(|mark| Circle::new(at(mark), 4, colour.filled()));
                    chart.draw_series(marks)?;
                }
            }};
        }
        let (x, y) = (least..most, low..high);
        match (self.logarithmic, chosen) {
            (true, true) => curves!(builder.build_cartesian_2d(x.log_scale().with_key_points(ticks), y)?),
            (true, false) => curves!(builder.build_cartesian_2d(x.log_scale(), y)?),
            (false, _) => curves!(builder.build_cartesian_2d(x, y)?),
        }
        if let Some(legend) = legend {
            self.draw_legend(&legend)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_legend(&self, legend: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        for (line, curve) in self.curves.iter().enumerate() {
            let colour = colour_of(line);
            let y = 16 + 20 * line as i32;
            legend.draw(&PathElement::new([(4, y), (26, y)], colour.stroke_width(2)))?;
            legend.draw(&Text::new(curve.label.clone(), (32, y - 6), ("sans-serif", 13)))?;
        }
        if self.has_marks() {
            let y = 16 + 20 * self.curves.len() as i32;
            legend.draw(&Circle::new((15, y), 4, BLACK.filled()))?;
            legend.draw(&Text::new(self.marked.clone(), (32, y - 6), ("sans-serif", 13)))?;
        }
        Ok(())
    }

    /// Whether the values of x were chosen in the matrix, as those of points with deviations are: they are few, and each is a tick.
    fn is_chosen(&self) -> bool {
        self.curves.iter().any(|curve| !curve.deviations.is_empty())
    }

    fn has_marks(&self) -> bool {
        self.curves.iter().any(|curve| !curve.marks.is_empty())
    }
}

const WRITES: &str = "writing to a string succeeds";

impl Figure for Chart {
    fn id(&self) -> &str {
        &self.id
    }

    /// The points of curves, then those that are marked.
    fn csv(&self) -> String {
        let mut records = Records::new(["chart", "curve", "x", "y", "sd", "mark"]);
        for curve in &self.curves {
            for (place, (x, y)) in curve.points.iter().enumerate() {
                let deviation = curve.deviation(place).map_or_else(String::new, |sd| format!("{sd:.4}"));
                let [x, y] = [x.to_string(), format!("{y:.4}")];
                records.add([&self.id, &curve.label, &x, &y, &deviation, ""]);
            }
            for (x, y) in &curve.marks {
                let [x, y] = [x.to_string(), format!("{y:.4}")];
                records.add([&self.id, &curve.label, &x, &y, "", &self.marked]);
            }
        }
        records.finish()
    }

    fn svg(&self) -> String {
        let mut text = String::new();
        self.draw(&mut text, &FILE).expect(WRITES);
        visible(&text)
    }

    fn tex(&self) -> String {
        let ([least, most], [low, high]) = self.ends();
        let mode = if self.logarithmic { "log" } else { "linear" };
        let ticks = if self.is_chosen() {
            " xtick=data, x tick label style={font=\\scriptsize},"
        } else {
            ""
        };
        let mut text = format!(
            "\\begin{{tikzpicture}}\n\\begin{{axis}}[\n  title={{{}}}, xlabel={{{}}}, ylabel={{{}}},\n  \
             width=10cm, height=7cm, xmode={mode}, log ticks with fixed point,\n  \
             xmin={least}, xmax={most}, ymin={low}, ymax={high},{ticks} clip mode=individual,\n  ymajorgrids, grid style={{black!10}},\n  \
             legend pos=outer north east, legend cell align=left, legend style={{draw=none, font=\\small}},\n]\n",
            escape(&self.title),
            escape(&self.x),
            escape(&self.y)
        );
        for (number, curve) in self.curves.iter().enumerate() {
            let colour = tikz::colour(COLOURS[number % COLOURS.len()]);
            let dashes = DASHES[number % DASHES.len()];
            let bars = if curve.deviations.is_empty() {
                "mark=none"
            } else {
                "mark=*, mark size=1.2pt, mark options={solid}, error bars/.cd, y dir=both, y explicit, \
                 error bar style={solid}"
            };
            writeln!(
                text,
                "\\addplot[color={colour}, thick, {dashes}, {bars}] coordinates {{"
            )
            .expect(WRITES);
            for (place, (x, y)) in curve.points.iter().enumerate() {
                let deviation = curve
                    .deviation(place)
                    .map_or_else(String::new, |sd| format!(" +- (0,{sd:.4})"));
                writeln!(text, "  ({},{y:.4}){deviation}", x.max(least)).expect(WRITES);
            }
            writeln!(text, "}};\n\\addlegendentry{{{}}}", escape(&curve.label)).expect(WRITES);
            if !curve.marks.is_empty() {
                let marks: Vec<String> = curve.marks.iter().map(|(x, y)| format!("({x},{y:.4})")).collect();
                writeln!(
                    text,
                    "\\addplot[color={colour}, only marks, mark=*, mark size=2pt, forget plot] coordinates {{{}}};",
                    marks.join(" ")
                )
                .expect(WRITES);
            }
        }
        if self.has_marks() {
            writeln!(
                text,
                "\\addlegendimage{{only marks, mark=*, mark size=2pt}}\n\\addlegendentry{{{}}}",
                escape(&self.marked)
            )
            .expect(WRITES);
        }
        document(&(text + "\\end{axis}\n\\end{tikzpicture}\n"))
    }
}

fn colour_of(curve: usize) -> RGBColor {
    let (red, green, blue) = COLOURS[curve % COLOURS.len()];
    RGBColor(red, green, blue)
}

/// A colour that no chart has, by which a curve's elements are found again.
const fn placeholder(curve: usize) -> RGBColor {
    RGBColor(1, (curve / 256) as u8, (curve % 256) as u8)
}

const fn tuple(RGBColor(red, green, blue): RGBColor) -> Colour {
    (red, green, blue)
}
