//! Robust overfitting: how much accuracy the last checkpoint has lost compared with the best.

use results::{Checkpoint, Row, Status};

use super::bars::{Bar, Bars};
use super::names::{entry_or_default, file_name, number_duplicates};

/// Accuracy of the best beside that of the last checkpoint: bars for each data set, network and attack for which both
/// exist, with mean and standard deviation over seeds; for one seed, with the 95 % interval over images.
pub fn overfitting_bars(rows: &[Row]) -> Vec<Bars> {
    type Pair<'a> = [Vec<&'a Row>; 2];
    let mut attacks: Vec<(_, Vec<(&str, Pair<'_>)>)> = Vec::new();
    for row in rows.iter().filter(|row| row.status == Status::Done) {
        if row.accuracy.is_none() {
            continue;
        }
        let attack = (&row.dataset, &row.network, &row.attack, row.kind, &row.source);
        let pair = entry_or_default(entry_or_default(&mut attacks, attack), row.defense.as_str());
        let which = usize::from(row.checkpoint == Checkpoint::Last);
        pair[which].push(row);
    }
    let mut charts = Vec::new();
    for ((dataset, network, attack, _, source), defenses) in attacks {
        let complete = |(_, pair): &(&str, Pair<'_>)| pair.iter().all(|seeds| !seeds.is_empty());
        let groups = defenses.into_iter().filter(complete);
        let bar = |seeds: &Vec<&Row>| {
            let values: Vec<f64> = seeds.iter().filter_map(|row| Some(100.0 * row.accuracy?)).collect();
            let interval = |row: &&Row| Some((100.0 * row.accuracy_low?, 100.0 * row.accuracy_high?));
            Some(Bar {
                value: results::mean(&values)?,
                deviation: results::sample_deviation(&values),
                interval: seeds.first().filter(|_| seeds.len() == 1).and_then(interval),
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
        chart,group,bar,value,sd,low,high
        overfitting-digits-lenet-pgd-20,Standard,best,61.0000,1.4142,,
        overfitting-digits-lenet-pgd-20,Standard,last,50.0000,0.0000,,
        ");
        assert!(bars[0].svg().contains(">Standard</text>"));
        fixtures::compile(&bars[0].id, &bars[0].tex());
        assert_eq!(overfitting_bars(&rows[4..]), []);
        // Of one seed, Wilson's interval of 60 in 100.
        let single = overfitting_bars(&rows[..2]);
        assert!(
            single[0].csv().contains("Standard,best,60.0000,,50.2"),
            "{}",
            single[0].csv()
        );
        fixtures::compile("overfitting-one-seed", &single[0].tex());
    }
}
