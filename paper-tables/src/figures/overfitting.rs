//! Robust overfitting: how much accuracy the last checkpoint has lost compared with the best.

use results::{Checkpoint, Row, Status};

use super::bars::{Bar, Bars};
use super::names::{entry_or_default, file_name, number_duplicates};

/// Accuracy of the best beside that of the last checkpoint: bars for each data set, network and attack for which both
/// exist, with mean and standard deviation over seeds.
pub fn overfitting_bars(rows: &[Row]) -> Vec<Bars> {
    type Pair = [Vec<f64>; 2];
    let mut attacks: Vec<(_, Vec<(&str, Pair)>)> = Vec::new();
    for row in rows.iter().filter(|row| row.status == Status::Done) {
        let Some(accuracy) = row.accuracy else { continue };
        let attack = (&row.dataset, &row.network, &row.attack, row.kind, &row.source);
        let pair = entry_or_default(entry_or_default(&mut attacks, attack), row.defense.as_str());
        let which = usize::from(row.checkpoint == Checkpoint::Last);
        pair[which].push(100.0 * accuracy);
    }
    let mut charts = Vec::new();
    for ((dataset, network, attack, _, source), defenses) in attacks {
        let complete = |(_, pair): &(&str, Pair)| pair.iter().all(|seeds| !seeds.is_empty());
        let groups = defenses.into_iter().filter(complete);
        let bar = |seeds: &Vec<f64>| {
            Some(Bar {
                value: results::mean(seeds)?,
                deviation: results::sample_deviation(seeds),
            })
        };
        let groups: Vec<_> = groups
            .map(|(defense, pair)| (defense.to_string(), pair.iter().map(bar).collect()))
            .collect();
        if groups.is_empty() {
            continue;
        }
        let from = source
            .as_ref()
            .map_or_else(String::new, |source| format!(" from {source}"));
        charts.push(Bars {
            id: file_name(&["overfitting", dataset, network, attack, &from]),
            title: format!("{dataset}, {network}: {attack}{from}"),
            y: "accuracy in %".to_string(),
            series: [Checkpoint::Best, Checkpoint::Last]
                .map(|checkpoint| checkpoint.to_string())
                .to_vec(),
            groups,
        });
    }
    number_duplicates(&mut charts, |chart| &mut chart.id);
    charts
}

#[cfg(test)]
mod tests {
    use results::Kind;

    use super::*;
    use crate::figures::Figure;
    use crate::fixtures;

    #[test]
    fn best_and_last_stand_side_by_side() {
        let evaluated = |defense: &str, checkpoint, seed, correct| {
            let place = ["digits", "lenet", defense, "PGD-20"];
            fixtures::row(place, Kind::WhiteBox, checkpoint, seed).with_count(100, correct)
        };
        let rows = [
            evaluated("Standard", Checkpoint::Best, 0, 60),
            evaluated("Standard", Checkpoint::Last, 0, 50),
            evaluated("Standard", Checkpoint::Best, 1, 62),
            evaluated("Standard", Checkpoint::Last, 1, 50),
            evaluated("MART", Checkpoint::Best, 0, 70),
        ];
        let bars = overfitting_bars(&rows);
        insta::assert_snapshot!(bars[0].csv(), @r"
        chart,group,bar,value,sd
        overfitting-digits-lenet-pgd-20,Standard,best,61.0000,1.4142
        overfitting-digits-lenet-pgd-20,Standard,last,50.0000,0.0000
        ");
        assert!(bars[0].svg().contains(">Standard</text>"));
        fixtures::compile(&bars[0].id, &bars[0].tex());
        assert_eq!(overfitting_bars(&rows[4..]), []);
    }
}
