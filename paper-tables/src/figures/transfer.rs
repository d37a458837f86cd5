//! Transfer: accuracy by source and target network.

use results::{Row, Status};

use super::heat::HeatMap;
use super::names::{entry_or_default, file_name, number_duplicates, place};

/// Accuracy by source and target: a map for each data set, network, checkpoint and attack that was crafted on at
/// least two networks, as the mean over seeds.
pub fn transfer_maps(rows: &[Row]) -> Vec<HeatMap> {
    type Pair<'a> = (&'a str, &'a str);
    type Seeds = Vec<f64>;
    // By attack; then by source and target.
    let mut attacks: Vec<(_, Vec<(Pair<'_>, Seeds)>)> = Vec::new();
    for row in rows.iter().filter(|row| row.status == Status::Done) {
        let (Some(source), Some(accuracy)) = (row.source.as_deref(), row.accuracy) else {
            continue;
        };
        let pairs = entry_or_default(&mut attacks, (place(row), row.attack.as_str()));
        entry_or_default(pairs, (source, row.defense.as_str())).push(100.0 * accuracy);
    }
    let mut maps = Vec::new();
    for (((dataset, network, checkpoint), attack), pairs) in attacks {
        let names = |pick: fn(&Pair<'_>) -> String| {
            let mut names: Vec<String> = pairs.iter().map(|(pair, _)| pick(pair)).collect();
            names.sort();
            names.dedup();
            names
        };
        let (sources, targets) = (names(|pair| pair.0.to_string()), names(|pair| pair.1.to_string()));
        if sources.len() < 2 {
            continue;
        }
        let value = |source: &String, target: &String| {
            let found = pairs
                .iter()
                .find(|(pair, _)| *pair == (source.as_str(), target.as_str()));
            results::mean(&found?.1)
        };
        let line = |source| targets.iter().map(|target| value(source, target)).collect();
        maps.push(HeatMap {
            id: file_name(&["heat", dataset, network, checkpoint.as_str(), attack]),
            title: format!("{dataset}, {network} ({checkpoint}): accuracy in % under {attack}"),
            line: "images made on".to_string(),
            column: "counted on".to_string(),
            values: sources.iter().map(line).collect(),
            lines: sources,
            columns: targets,
        });
    }
    number_duplicates(&mut maps, |map| &mut map.id);
    maps
}

#[cfg(test)]
mod tests {
    use results::{Checkpoint, Kind};

    use super::*;
    use crate::figures::Figure;
    use crate::fixtures;

    #[test]
    fn sources_are_lines_and_targets_are_columns() {
        let moved = |source: &str, target: &str, seed, correct| {
            let place = ["digits", "lenet", target, "FGSM"];
            Row {
                source: Some(source.to_string()),
                ..fixtures::row(place, Kind::Transfer, Checkpoint::Best, seed)
            }
            .with_count(100, correct)
        };
        let rows = [
            moved("Natural / lenet", "MART", 0, 80),
            moved("Natural / lenet", "MART", 1, 84),
            moved("MART / lenet", "MART", 0, 50),
            moved("MART / lenet", "Natural", 0, 70),
        ];
        let maps = transfer_maps(&rows);
        insta::assert_snapshot!(maps[0].csv(), @r"
        chart,images made on,counted on,value
        heat-digits-lenet-best-fgsm,MART / lenet,MART,50.0000
        heat-digits-lenet-best-fgsm,MART / lenet,Natural,70.0000
        heat-digits-lenet-best-fgsm,Natural / lenet,MART,82.0000
        heat-digits-lenet-best-fgsm,Natural / lenet,Natural,
        ");
        assert!(maps[0].svg().contains(">82.00</text>"));
        fixtures::compile(&maps[0].id, &maps[0].tex());
        assert_eq!(transfer_maps(&rows[..2]), []);
    }
}
