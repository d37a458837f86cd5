//! Curves: accuracy over the radius, success over queries. As SVG for readers and CSV for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use plotters::prelude::*;
use results::{Checkpoint, Kind, Outcome, Row, Status};

use crate::csv::quote;

/// A chart of curves that share their axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The name in files: letters, digits and hyphens.
    pub id: String,
    /// The title.
    pub title: String,
    /// What x is.
    pub x: String,
    /// What y is, from 0 to 100.
    pub y: String,
    /// Whether x is drawn by its logarithm, from 1.
    pub logarithmic: bool,
    /// One for each defense.
    pub curves: Vec<Curve>,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The defense's label.
    pub label: String,
    /// x and y, by x.
    pub points: Vec<(f64, f64)>,
}

/// Colours that the colour-blind can tell apart (Okabe and Ito 2008).
const COLOURS: [(u8, u8, u8); 8] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 0, 0),
    (153, 153, 153),
];
const SIZE: (u32, u32) = (720, 440);
/// Room for the longest name of a defense.
const LEGEND: u32 = 170;

impl Chart {
    /// The chart as CSV: one line for each point.
    pub fn csv(&self) -> String {
        let mut text = "chart,curve,x,y\n".to_string();
        for curve in &self.curves {
            for (x, y) in &curve.points {
                let (id, label) = (quote(&self.id), quote(&curve.label));
                writeln!(text, "{id},{label},{x},{y:.4}").expect("writing to a string succeeds");
            }
        }
        text
    }

    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let mut text = String::new();
        self.draw(&mut text).expect("writing to a string succeeds");
        text
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(&self.title, ("sans-serif", 18))?;
        let (plot, legend) = root.split_horizontally(SIZE.0 - LEGEND);
        let least = if self.logarithmic { 1.0 } else { 0.0 };
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let most = points.map(|(x, _)| *x).fold(least, f64::max);
        let most = if most > least { most } else { least + 1.0 };
        let mut builder = ChartBuilder::on(&plot);
        builder.margin(8).x_label_area_size(40).y_label_area_size(50);
        let label = |x: &f64| format!("{}", (x * 1e4).round() / 1e4);
        let percent = |y: &f64| format!("{y:.0}");
        // The two kinds of axis have two types.
        macro_rules! curves {
            ($chart:expr) => {{
                let mut chart = $chart;
                chart
                    .configure_mesh()
                    .light_line_style(WHITE)
                    .x_desc(&self.x)
                    .y_desc(&self.y)
                    .x_label_formatter(&label)
                    .y_label_formatter(&percent)
                    .draw()?;
                for (curve, colour) in self.curves.iter().zip(colours()) {
                    let points = curve.points.iter().map(|&(x, y)| (x.max(least), y));
                    chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
                }
            }};
        }
        match self.logarithmic {
            true => curves!(builder.build_cartesian_2d((least..most).log_scale(), 0.0..100.0)?),
            false => curves!(builder.build_cartesian_2d(least..most, 0.0..100.0)?),
        }
        for (line, (curve, colour)) in self.curves.iter().zip(colours()).enumerate() {
            let y = 16 + 20 * line as i32;
            legend.draw(&PathElement::new([(4, y), (26, y)], colour.stroke_width(2)))?;
            legend.draw(&Text::new(curve.label.clone(), (32, y - 6), ("sans-serif", 13)))?;
        }
        root.present()?;
        Ok(())
    }
}

fn colours() -> impl Iterator<Item = RGBColor> {
    COLOURS
        .iter()
        .cycle()
        .map(|&(red, green, blue)| RGBColor(red, green, blue))
}

/// Data set, network, checkpoint.
type Place<'a> = (&'a str, &'a str, Checkpoint);

fn place(row: &Row) -> Place<'_> {
    (&row.dataset, &row.network, row.checkpoint)
}

/// Accuracy over the radius: a chart for each data set, network, checkpoint and attack that was run at three radii at
/// least, the mean over seeds. Accuracy on clean images is the point at 0.
pub fn epsilon_charts(rows: &[Row]) -> Vec<Chart> {
    let done = || {
        rows.iter()
            .filter(|row| row.status == Status::Done && row.accuracy.is_some())
    };
    // By attack, then defense, then radius: the accuracies of the seeds.
    type Radii = BTreeMap<u64, Vec<f64>>;
    let mut attacks: BTreeMap<_, Vec<(&str, Radii)>> = BTreeMap::new();
    for row in done().filter(|row| row.kind != Kind::Natural) {
        let (Some(epsilon), Some(accuracy)) = (row.epsilon_value, row.accuracy) else {
            continue;
        };
        let method = (
            &row.attack_name,
            &row.loss,
            row.steps,
            row.restarts,
            row.kind,
            &row.source,
        );
        let defenses = attacks.entry((place(row), &row.norm, method)).or_default();
        let known = defenses.iter().position(|(defense, _)| *defense == row.defense);
        let known = known.unwrap_or_else(|| {
            defenses.push((&row.defense, Radii::new()));
            defenses.len() - 1
        });
        // Radii are not negative, and so ordered by their bits.
        defenses[known].1.entry(epsilon.to_bits()).or_default().push(accuracy);
    }
    let mut charts = Vec::new();
    for ((place_of, norm, method), defenses) in attacks {
        let radii: BTreeSet<u64> = defenses.iter().flat_map(|(_, radii)| radii.keys().copied()).collect();
        if radii.len() < 3 {
            continue;
        }
        let curves = defenses.into_iter().map(|(defense, mut radii)| {
            let clean =
                done().filter(|row| row.kind == Kind::Natural && row.defense == defense && place(row) == place_of);
            let clean: Vec<f64> = clean.filter_map(|row| row.accuracy).collect();
            if !clean.is_empty() {
                radii.entry(0).or_insert(clean);
            }
            let point = |(radius, values): (u64, Vec<f64>)| {
                (f64::from_bits(radius), 100.0 * results::mean(&values).unwrap_or(0.0))
            };
            Curve {
                label: defense.to_string(),
                points: radii.into_iter().map(point).collect(),
            }
        });
        let curves: Vec<Curve> = curves.collect();
        let (name, _, steps, _, _, source) = method;
        let attack = match steps {
            Some(steps) => format!("{}-{steps}", name.to_uppercase()),
            None => name.to_uppercase(),
        };
        let source = source.as_ref().map_or_else(String::new, |it| format!(" from {it}"));
        let norm = if norm.as_deref() == Some("l2") { "L2" } else { "Linf" };
        charts.push(chart(
            "epsilon",
            place_of,
            &format!("{attack}{source}"),
            Chart {
                id: String::new(),
                title: String::new(),
                x: format!("radius ({norm})"),
                y: "accuracy in %".to_string(),
                logarithmic: false,
                curves,
            },
        ));
    }
    apart(charts)
}

/// Success over queries: a chart for each data set, network, checkpoint and query attack. y is the share of images that
/// are misclassified after x queries, over all seeds; those that the network gets wrong without any are there from the
/// start. `outcomes` gives a row's outcomes.
pub fn query_charts<E>(
    rows: &[Row],
    mut outcomes: impl FnMut(&Row) -> Result<Vec<Outcome>, E>,
) -> Result<Vec<Chart>, E> {
    /// Images, those that fell with the number of queries each took, and the most that were asked.
    #[derive(Default)]
    struct Fallen {
        images: usize,
        after: Vec<u64>,
        budget: u64,
    }
    let mut attacks: BTreeMap<_, Vec<(&str, Fallen)>> = BTreeMap::new();
    for row in rows
        .iter()
        .filter(|row| row.status == Status::Done && row.queries.is_some())
    {
        let epsilon = row.epsilon.as_deref().unwrap_or_default();
        let defenses = attacks.entry((place(row), &row.attack, epsilon)).or_default();
        let known = defenses.iter().position(|(defense, _)| *defense == row.defense);
        let known = known.unwrap_or_else(|| {
            defenses.push((&row.defense, Fallen::default()));
            defenses.len() - 1
        });
        let fallen = &mut defenses[known].1;
        for it in outcomes(row)? {
            fallen.images += 1;
            fallen.after.extend(it.queries_until_success);
            fallen.budget = fallen.budget.max(it.queries.unwrap_or(0));
        }
    }
    let mut charts = Vec::new();
    for ((place_of, attack, epsilon), defenses) in attacks {
        let budget = defenses.iter().map(|(_, fallen)| fallen.budget).max().unwrap_or(0);
        let curves = defenses.into_iter().map(|(defense, mut fallen)| {
            fallen.after.sort_unstable();
            Curve {
                label: defense.to_string(),
                points: stairs(&fallen.after, fallen.images, budget),
            }
        });
        let curves = curves.collect();
        charts.push(chart(
            "queries",
            place_of,
            attack,
            Chart {
                id: String::new(),
                title: format!(", radius {epsilon}"),
                x: "queries".to_string(),
                y: "misclassified in %".to_string(),
                logarithmic: true,
                curves,
            },
        ));
    }
    Ok(apart(charts))
}

/// The share of images that have fallen after each number of queries, as a curve of steps. `after` is sorted.
fn stairs(after: &[u64], images: usize, budget: u64) -> Vec<(f64, f64)> {
    let share = |fallen: usize| 100.0 * fallen as f64 / images.max(1) as f64;
    let at_once = after.partition_point(|&queries| queries == 0);
    let mut points = vec![(0.0, share(at_once))];
    let mut fallen = at_once;
    while fallen < after.len() {
        let queries = after[fallen];
        points.push((queries as f64, share(fallen)));
        fallen = after.partition_point(|&it| it <= queries);
        points.push((queries as f64, share(fallen)));
    }
    points.push((budget as f64, share(fallen)));
    points
}

/// A chart with its name and title.
fn chart(what: &str, (dataset, network, checkpoint): Place<'_>, attack: &str, body: Chart) -> Chart {
    let plain = |text: &str| {
        let lower = text.to_lowercase();
        let words = lower
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    };
    Chart {
        id: plain(&format!("{what} {dataset} {network} {checkpoint} {attack}")),
        title: format!("{dataset}, {network} ({checkpoint}): {attack}{}", body.title),
        ..body
    }
}

/// Numbers charts of one name.
fn apart(mut charts: Vec<Chart>) -> Vec<Chart> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for chart in &mut charts {
        let count = seen.entry(chart.id.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            chart.id += &format!("-{count}");
        }
    }
    charts
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::samples::row;

    fn attacked(defense: &str, epsilon: &str, seed: u64, correct: u64) -> Row {
        Row {
            epsilon: Some(epsilon.to_string()),
            epsilon_value: Some(epsilon.parse().unwrap()),
            steps: Some(20),
            attack_name: "pgd".to_string(),
            ..row(
                ["digits", "lenet", defense, "PGD-20"],
                Kind::WhiteBox,
                Checkpoint::Best,
                seed,
            )
        }
        .with_count(100, correct)
    }

    #[test]
    fn a_sweep_is_a_curve_from_the_clean_accuracy_down() {
        let clean = row(
            ["digits", "lenet", "MART", "Natural"],
            Kind::Natural,
            Checkpoint::Best,
            0,
        )
        .with_count(100, 90);
        let mut rows = vec![clean, attacked("MART", "0.2", 0, 20), attacked("MART", "0.1", 0, 50)];
        assert_eq!(epsilon_charts(&rows), []);
        rows.extend([
            attacked("MART", "0.1", 1, 75),
            attacked("MART", "0.3", 0, 5),
            attacked("ALP", "0.1", 0, 1),
        ]);
        let charts = epsilon_charts(&rows);
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].id, "epsilon-digits-lenet-best-pgd-20");
        let curves: Vec<_> = charts[0]
            .curves
            .iter()
            .map(|it| (it.label.as_str(), it.points.clone()))
            .collect();
        assert_eq!(
            curves,
            [
                ("MART", vec![(0.0, 90.0), (0.1, 62.5), (0.2, 20.0), (0.3, 5.0)]),
                ("ALP", vec![(0.1, 1.0)])
            ]
        );
        insta::assert_snapshot!(charts[0].csv(), @r"
        chart,curve,x,y
        epsilon-digits-lenet-best-pgd-20,MART,0,90.0000
        epsilon-digits-lenet-best-pgd-20,MART,0.1,62.5000
        epsilon-digits-lenet-best-pgd-20,MART,0.2,20.0000
        epsilon-digits-lenet-best-pgd-20,MART,0.3,5.0000
        epsilon-digits-lenet-best-pgd-20,ALP,0.1,1.0000
        ");
        let svg = charts[0].svg();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for part in ["MART", "ALP", "radius (Linf)", "accuracy in %", "polyline"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }

    /// Of four images one is wrong at once, one falls after 3 queries, one after 7, one never.
    #[test]
    fn success_is_a_staircase_over_queries() {
        assert_eq!(
            stairs(&[0, 3, 7], 4, 10),
            [
                (0.0, 25.0),
                (3.0, 25.0),
                (3.0, 50.0),
                (7.0, 50.0),
                (7.0, 75.0),
                (10.0, 75.0)
            ]
        );
        assert_eq!(stairs(&[], 4, 10), [(0.0, 0.0), (10.0, 0.0)]);
        let square = Row {
            queries: Some(30),
            ..row(["digits", "lenet", "MART", "SQUARE"], Kind::Query, Checkpoint::Best, 0).with_count(4, 1)
        };
        let outcomes = |row: &Row| {
            let until = [Some(0), Some(3), Some(7), None];
            let of = |(example, until): (usize, &Option<u64>)| Outcome {
                cell: row.cell.clone(),
                example: example as u64,
                label: 0,
                predicted_clean: None,
                predicted: 0,
                correct: until.is_none(),
                delta: 0.0,
                queries: Some(until.unwrap_or(10)),
                queries_until_success: *until,
            };
            Ok::<_, Infallible>(until.iter().enumerate().map(of).collect())
        };
        let charts = query_charts(&[square], outcomes).unwrap();
        assert_eq!(charts[0].id, "queries-digits-lenet-best-square");
        assert_eq!(charts[0].curves[0].points, stairs(&[0, 3, 7], 4, 10));
        assert!(charts[0].svg().contains("misclassified in %"));
    }

    #[test]
    fn names_of_charts_differ() {
        let one = chart(
            "queries",
            ("digits", "lenet", Checkpoint::Best),
            "SQUARE",
            Chart {
                id: String::new(),
                title: String::new(),
                x: String::new(),
                y: String::new(),
                logarithmic: false,
                curves: Vec::new(),
            },
        );
        let names: Vec<String> = apart(vec![one.clone(), one.clone()])
            .into_iter()
            .map(|it| it.id)
            .collect();
        assert_eq!(
            names,
            ["queries-digits-lenet-best-square", "queries-digits-lenet-best-square-2"]
        );
        // Without a single point it is an empty frame.
        assert!(one.svg().contains("</svg>"));
    }
}
