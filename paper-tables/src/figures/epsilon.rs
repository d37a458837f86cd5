//! Accuracy over the radius.

use std::collections::{BTreeMap, BTreeSet};

use results::{Kind, Row, Status};

use super::chart::{Chart, Curve};
use super::names::{entry_or_default, file_name, number_duplicates, place};

/// Accuracy over the radius: a chart for each data set, network, checkpoint and attack that was run at three radii at
/// least, as the mean over seeds. Accuracy on clean images is the point at 0.
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
        // Radii are not negative, and so ordered by their bits.
        let radii = entry_or_default(defenses, row.defense.as_str());
        radii.entry(epsilon.to_bits()).or_default().push(accuracy);
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
                ..Curve::default()
            }
        });
        let (attack_name, _, steps, _, _, source) = method;
        let attack = match steps {
            Some(steps) => format!("{}-{steps}", attack_name.to_uppercase()),
            None => attack_name.to_uppercase(),
        };
        let source = source
            .as_ref()
            .map_or_else(String::new, |source| format!(" from {source}"));
        let norm = if norm.as_deref() == Some("l2") { "L2" } else { "Linf" };
        let (dataset, network, checkpoint) = place_of;
        charts.push(Chart {
            id: file_name(&["epsilon", dataset, network, checkpoint.as_str(), &attack, &source]),
            title: format!("{dataset}, {network} ({checkpoint}): {attack}{source}"),
            x: format!("radius ({norm})"),
            y: "accuracy in %".to_string(),
            curves: curves.collect(),
            ..Chart::default()
        });
    }
    number_duplicates(&mut charts, |chart| &mut chart.id);
    charts
}

#[cfg(test)]
mod tests {
    use results::Checkpoint;

    use super::*;
    use crate::figures::Figure;
    use crate::fixtures;

    fn attacked(defense: &str, epsilon: &str, seed: u64, correct: u64) -> Row {
        Row {
            epsilon: Some(epsilon.to_string()),
            epsilon_value: Some(epsilon.parse().unwrap()),
            steps: Some(20),
            attack_name: "pgd".to_string(),
            ..fixtures::row(
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
        let clean = fixtures::row(
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
            .map(|curve| (curve.label.as_str(), curve.points.clone()))
            .collect();
        assert_eq!(
            curves,
            [
                ("MART", vec![(0.0, 90.0), (0.1, 62.5), (0.2, 20.0), (0.3, 5.0)]),
                ("ALP", vec![(0.1, 1.0)])
            ]
        );
        insta::assert_snapshot!(charts[0].csv(), @r"
        chart,curve,x,y,sd,mark
        epsilon-digits-lenet-best-pgd-20,MART,0,90.0000,,
        epsilon-digits-lenet-best-pgd-20,MART,0.1,62.5000,,
        epsilon-digits-lenet-best-pgd-20,MART,0.2,20.0000,,
        epsilon-digits-lenet-best-pgd-20,MART,0.3,5.0000,,
        epsilon-digits-lenet-best-pgd-20,ALP,0.1,1.0000,,
        ");
        let svg = charts[0].svg();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for part in ["MART", "ALP", "radius (Linf)", "accuracy in %", "polyline"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        fixtures::compile(&charts[0].id, &charts[0].tex());
    }
}
