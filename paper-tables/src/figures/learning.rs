//! Learning curves: accuracy on the checkpoint-selection images, and the training loss.

use std::collections::{BTreeMap, BTreeSet};

use super::chart::{Chart, Curve, Point};
use super::names::{entry_or_default, file_name, number_duplicates};

/// What a training recorded after each epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Name of the data set.
    pub dataset: String,
    /// Name of the network.
    pub network: String,
    /// Label of the defense.
    pub defense: String,
    /// Label of the recipe.
    pub recipe: String,
    /// The epochs, by number.
    pub epochs: Vec<Epoch>,
}

/// What a training recorded after one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u64,
    /// Mean objective over the epoch's training examples, in nats.
    pub loss: f64,
    /// Accuracy on the clean checkpoint-selection images, a fraction. `None`: not measured.
    pub natural: Option<f64>,
    /// The same under attack.
    pub robust: Option<f64>,
}

/// What is drawn of an epoch.
struct Quantity {
    id: &'static str,
    title: &'static str,
    y: &'static str,
    of: fn(&Epoch) -> Option<f64>,
}

const QUANTITIES: [Quantity; 3] = [
    Quantity {
        id: "robust",
        title: "robust accuracy on the checkpoint-selection images",
        y: "accuracy in %",
        of: |epoch| Some(100.0 * epoch.robust?),
    },
    Quantity {
        id: "natural",
        title: "natural accuracy on the checkpoint-selection images",
        y: "accuracy in %",
        of: |epoch| Some(100.0 * epoch.natural?),
    },
    Quantity {
        id: "loss",
        title: "training loss (each defense's own)",
        y: "loss in nats",
        of: |epoch| Some(epoch.loss),
    },
];

/// Curves over epochs: for each data set and network one chart of robust accuracy, one of natural accuracy and one of
/// the loss, with one curve per defense: the mean over the seeds that measured the epoch. A mark is the best epoch of a
/// seed, at that seed's value. Trainings with fewer than two measured epochs are left out.
pub fn learning_charts(histories: &[History]) -> Vec<Chart> {
    type Seeds<'a> = Vec<&'a History>;
    let mut networks: Vec<(_, Vec<(String, Seeds<'_>)>)> = Vec::new();
    for history in histories {
        let defenses = entry_or_default(&mut networks, (history.dataset.as_str(), history.network.as_str()));
        entry_or_default(defenses, label(history, histories)).push(history);
    }
    let mut charts = Vec::new();
    for quantity in &QUANTITIES {
        for ((dataset, network), defenses) in &networks {
            let curves = defenses
                .iter()
                .filter_map(|(defense, seeds)| curve(quantity, defense, seeds));
            let curves: Vec<Curve> = curves.collect();
            if curves.is_empty() {
                continue;
            }
            charts.push(Chart {
                id: file_name(&["learning", quantity.id, dataset, network]),
                title: format!("{dataset}, {network}: {}", quantity.title),
                x: "epoch".to_string(),
                y: quantity.y.to_string(),
                range: (quantity.id == "loss").then(|| (0.0, highest(&curves))),
                marked: "best epoch of a seed".to_string(),
                curves,
                ..Chart::default()
            });
        }
    }
    number_duplicates(&mut charts, |chart| &mut chart.id);
    charts
}

/// The defense, and the recipe if it was trained with several.
fn label(history: &History, all: &[History]) -> String {
    let of = |other: &&History| {
        (&other.dataset, &other.network, &other.defense) == (&history.dataset, &history.network, &history.defense)
    };
    let recipes: BTreeSet<&str> = all.iter().filter(of).map(|history| history.recipe.as_str()).collect();
    match recipes.len() {
        1 => history.defense.clone(),
        _ => format!("{}, {}", history.defense, history.recipe),
    }
}

fn curve(quantity: &Quantity, defense: &str, seeds: &[&History]) -> Option<Curve> {
    let mut epochs: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for epoch in seeds.iter().flat_map(|seed| &seed.epochs) {
        if let Some(value) = (quantity.of)(epoch) {
            epochs.entry(epoch.epoch).or_default().push(value);
        }
    }
    let points = epochs.into_iter();
    let points: Vec<Point> = points
        .filter_map(|(epoch, values)| Some((epoch as f64, results::mean(&values)?)))
        .collect();
    let mark = |seed: &&History| {
        let best = best(&seed.epochs)?;
        Some((best.epoch as f64, (quantity.of)(best)?))
    };
    (points.len() > 1).then(|| Curve {
        label: defense.to_string(),
        points,
        marks: seeds.iter().filter_map(mark).collect(),
        ..Curve::default()
    })
}

/// The epoch of the best checkpoint: the first with the highest robust accuracy.
fn best(epochs: &[Epoch]) -> Option<&Epoch> {
    let measured = epochs.iter().filter(|epoch| epoch.robust.is_some());
    measured.reduce(|best, epoch| if epoch.robust > best.robust { epoch } else { best })
}

/// A round number above all points.
fn highest(curves: &[Curve]) -> f64 {
    let all = curves.iter().flat_map(|curve| curve.points.iter().chain(&curve.marks));
    let most = all.map(|(_, y)| *y).filter(|y| y.is_finite()).fold(0.0, f64::max);
    let unit = 10f64.powf(most.max(1e-9).log10().floor()) / 2.0;
    (most / unit).ceil().max(1.0) * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figure;
    use crate::fixtures;

    fn history(defense: &str, robust: &[Option<f64>]) -> History {
        let epoch = |(number, robust): (usize, &Option<f64>)| Epoch {
            epoch: number as u64 + 1,
            loss: 2.3 / (number + 1) as f64,
            natural: robust.map(|accuracy| accuracy + 0.25),
            robust: *robust,
        };
        History {
            dataset: "digits".into(),
            network: "lenet".into(),
            defense: defense.into(),
            recipe: "shared".into(),
            epochs: robust.iter().enumerate().map(epoch).collect(),
        }
    }

    #[test]
    fn curves_are_means_and_marks_are_of_seeds() {
        let histories = [
            history("MART", &[Some(0.25), None, Some(0.5), Some(0.5)]),
            history("MART", &[Some(0.125), None, Some(0.25), Some(0.375)]),
            history("Natural", &[None, Some(0.0)]),
        ];
        let charts = learning_charts(&histories);
        let ids: Vec<&str> = charts.iter().map(|chart| chart.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "learning-robust-digits-lenet",
                "learning-natural-digits-lenet",
                "learning-loss-digits-lenet"
            ]
        );
        let [mart] = &charts[0].curves[..] else {
            panic!("one measured epoch is no curve");
        };
        assert_eq!(mart.points, [(1.0, 18.75), (3.0, 37.5), (4.0, 43.75)]);
        // The first of equals.
        assert_eq!(mart.marks, [(3.0, 50.0), (4.0, 37.5)]);
        assert_eq!(charts[1].curves[0].marks, [(3.0, 75.0), (4.0, 62.5)]);
        let loss = &charts[2];
        assert_eq!(loss.curves.len(), 2);
        assert_eq!(loss.range, Some((0.0, 2.5)));
        assert!(
            loss.csv()
                .contains("learning-loss-digits-lenet,MART,3,0.7667,,best epoch of a seed\n")
        );
        assert!(charts[0].svg().contains("best epoch of a seed"));
        fixtures::compile(&charts[0].id, &charts[0].tex());
        fixtures::compile(&loss.id, &loss.tex());
        assert_eq!(learning_charts(&[]), []);
    }

    #[test]
    fn recipes_tell_curves_apart() {
        let long = History {
            recipe: "long".into(),
            ..history("MART", &[Some(0.25), Some(0.5)])
        };
        let charts = learning_charts(&[history("MART", &[Some(0.25), Some(0.5)]), long]);
        let labels: Vec<&str> = charts[0].curves.iter().map(|curve| curve.label.as_str()).collect();
        assert_eq!(labels, ["MART, shared", "MART, long"]);
    }
}
