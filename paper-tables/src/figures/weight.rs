//! Accuracy over the weight of a loss's second term, λ or β: the form of the MART paper's Figure 2d.

use std::collections::{BTreeMap, BTreeSet};

use results::{Row, Status};

use super::chart::{Chart, Curve};
use super::names::{entry_or_default, file_name, number_duplicates, place};

/// The weight in a defense's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The same for all trainings that differ in the weight and the seed alone.
    pub family: String,
    /// What the curve is called: the method.
    pub label: String,
    /// What the weight is called: λ or β.
    pub symbol: String,
    /// The weight itself.
    pub value: f64,
}

/// Accuracy over weights: a chart for each data set, network, checkpoint and attack, with a curve for each defense that was
/// trained with at least three weights and is otherwise the same: the mean and the standard deviation over seeds. `weight`
/// gives a row's, if its defense has one.
pub fn weight_charts(rows: &[Row], weight: impl Fn(&Row) -> Option<Weight>) -> Vec<Chart> {
    type Values = BTreeMap<u64, Vec<f64>>;
    type Family = (Option<Weight>, Values);
    // By attack, then family.
    let mut attacks: Vec<(_, Vec<(String, Family)>)> = Vec::new();
    for row in rows.iter().filter(|row| row.status == Status::Done) {
        let (Some(accuracy), Some(weight)) = (row.accuracy, weight(row)) else {
            continue;
        };
        let attack = (place(row), row.attack.as_str(), row.kind, row.source.as_deref());
        let (first, values) = entry_or_default(entry_or_default(&mut attacks, attack), weight.family.clone());
        // Weights are not negative, and so ordered by their bits.
        values
            .entry(weight.value.abs().to_bits())
            .or_default()
            .push(100.0 * accuracy);
        first.get_or_insert(weight);
    }
    let mut charts = Vec::new();
    for (((dataset, network, checkpoint), attack, _, source), families) in attacks {
        let families: Vec<(Weight, Values)> = families
            .into_iter()
            .filter_map(|(_, (weight, values))| Some((weight?, values)))
            .filter(|(_, values)| values.len() >= 3)
            .collect();
        if families.is_empty() {
            continue;
        }
        let symbols: BTreeSet<&str> = families.iter().map(|(weight, _)| weight.symbol.as_str()).collect();
        let symbols: Vec<&str> = symbols.into_iter().collect();
        let from = source.map_or_else(String::new, |source| format!(" from {source}"));
        charts.push(Chart {
            id: file_name(&["weight", dataset, network, checkpoint.as_str(), attack, &from]),
            title: format!("{dataset}, {network} ({checkpoint}): {attack}{from}"),
            x: symbols.join(" or "),
            y: "accuracy in %".to_string(),
            // A logarithm has no place for 0.
            logarithmic: families.iter().all(|(_, values)| !values.contains_key(&0)),
            curves: families.into_iter().map(curve).collect(),
            ..Chart::default()
        });
    }
    number_duplicates(&mut charts, |chart| &mut chart.id);
    charts
}

fn curve((weight, values): (Weight, BTreeMap<u64, Vec<f64>>)) -> Curve {
    let deviation = |values: &Vec<f64>| results::sample_deviation(values).unwrap_or(f64::NAN);
    let points = values
        .iter()
        .filter_map(|(value, seeds)| Some((f64::from_bits(*value), results::mean(seeds)?)));
    Curve {
        label: weight.label,
        points: points.collect(),
        deviations: values.values().map(deviation).collect(),
        ..Curve::default()
    }
}

#[cfg(test)]
mod tests {
    use results::{Checkpoint, Kind};

    use super::*;
    use crate::figures::Figure;
    use crate::fixtures;

    /// MART with λ of 1, 2, 5 and 0.5, the last with one seed; TRADES with two weights alone.
    #[test]
    fn weights_are_a_curve_with_deviations() {
        let trained = [
            ("MART λ=5", 0, 60),
            ("MART λ=5", 1, 64),
            ("MART λ=1", 0, 40),
            ("MART λ=1", 1, 40),
            ("MART λ=2", 0, 50),
            ("MART λ=0.5", 0, 30),
            ("TRADES β=1", 0, 10),
            ("TRADES β=6", 0, 10),
            ("Standard", 0, 10),
        ];
        let rows: Vec<Row> = trained
            .iter()
            .map(|(defense, seed, correct)| {
                let place = ["digits", "lenet", defense, "PGD-20"];
                fixtures::row(place, Kind::WhiteBox, Checkpoint::Best, *seed).with_count(100, *correct)
            })
            .collect();
        let weight = |row: &Row| {
            let (method, value) = row.defense.split_once('=')?;
            let (label, symbol) = method.split_once(' ')?;
            Some(Weight {
                family: label.to_string(),
                label: label.to_string(),
                symbol: symbol.to_string(),
                value: value.parse().unwrap(),
            })
        };
        let charts = weight_charts(&rows, weight);
        assert_eq!(charts.len(), 1);
        assert!(charts[0].logarithmic);
        insta::assert_snapshot!(charts[0].csv(), @r"
        chart,curve,x,y,sd,mark
        weight-digits-lenet-best-pgd-20,MART,0.5,30.0000,,
        weight-digits-lenet-best-pgd-20,MART,1,40.0000,0.0000,
        weight-digits-lenet-best-pgd-20,MART,2,50.0000,,
        weight-digits-lenet-best-pgd-20,MART,5,62.0000,2.8284,
        ");
        assert_eq!(charts[0].x, "λ");
        fixtures::compile(&charts[0].id, &charts[0].tex());
        assert_eq!(weight_charts(&rows[..4], weight), []);

        // 0 has no logarithm.
        let none = |row: &Row| {
            Some(Weight {
                value: weight(row)?.value - 0.5,
                ..weight(row)?
            })
        };
        assert!(!weight_charts(&rows, none)[0].logarithmic);
    }
}
