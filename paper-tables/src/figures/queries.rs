//! Success over queries.

use std::collections::BTreeMap;

use results::{Outcome, Row, Status};

use super::chart::{Chart, Curve, Point};
use super::names::{entry_or_default, file_name, number_duplicates, place};

/// Success over queries: a chart for each data set, network, checkpoint and query attack. y is the share of images that
/// are misclassified after x queries, over all seeds; images that the network misclassifies without any count from the
/// start. `outcomes` gives a row's outcomes.
pub fn query_charts<E>(
    rows: &[Row],
    mut outcomes: impl FnMut(&Row) -> Result<Vec<Outcome>, E>,
) -> Result<Vec<Chart>, E> {
    /// The number of images, the queries that each successful attack took, and the largest number of queries.
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
        let fallen = entry_or_default(defenses, row.defense.as_str());
        for outcome in outcomes(row)? {
            fallen.images += 1;
            fallen.after.extend(outcome.queries_until_success);
            fallen.budget = fallen.budget.max(outcome.queries.unwrap_or(0));
        }
    }
    let mut charts = Vec::new();
    for (((dataset, network, checkpoint), attack, epsilon), defenses) in attacks {
        let budget = defenses.iter().map(|(_, fallen)| fallen.budget).max().unwrap_or(0);
        let curves = defenses.into_iter().map(|(defense, mut fallen)| {
            fallen.after.sort_unstable();
            Curve {
                label: defense.to_string(),
                points: stairs(&fallen.after, fallen.images, budget),
                ..Curve::default()
            }
        });
        charts.push(Chart {
            id: file_name(&["queries", dataset, network, checkpoint.as_str(), attack]),
            title: format!("{dataset}, {network} ({checkpoint}): {attack}, radius {epsilon}"),
            x: "queries".to_string(),
            y: "misclassified in %".to_string(),
            logarithmic: true,
            curves: curves.collect(),
            ..Chart::default()
        });
    }
    number_duplicates(&mut charts, |chart| &mut chart.id);
    Ok(charts)
}

/// The share of images misclassified after each number of queries, as a staircase. `after` is sorted.
fn stairs(after: &[u64], images: usize, budget: u64) -> Vec<Point> {
    let share = |fallen: usize| 100.0 * fallen as f64 / images.max(1) as f64;
    let at_once = after.partition_point(|&queries| queries == 0);
    let mut points = vec![(0.0, share(at_once))];
    let mut fallen = at_once;
    while fallen < after.len() {
        let queries = after[fallen];
        points.push((queries as f64, share(fallen)));
        fallen = after.partition_point(|&asked| asked <= queries);
        points.push((queries as f64, share(fallen)));
    }
    points.push((budget as f64, share(fallen)));
    points
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use results::{Checkpoint, Kind};

    use super::*;
    use crate::figures::Figure;
    use crate::fixtures;

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
            ..fixtures::row(["digits", "lenet", "MART", "SQUARE"], Kind::Query, Checkpoint::Best, 0).with_count(4, 1)
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
        fixtures::compile(&charts[0].id, &charts[0].tex());
    }
}
