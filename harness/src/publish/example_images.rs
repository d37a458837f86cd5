//! A few test images before and after each attack, as evaluations kept them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Tensor;
use paper_tables::{AttackedImage, AttackedImages, CleanImage, ExampleImages, Image, magnification};
use results::{Checkpoint, Kind, Outcome, Row, Status};
use storage::cell_folder;
use storage::examples::{self, Examples};

use super::run::FinishedRun;

/// A page, or the figures of a run, hold no more characters of images.
const CHARACTERS: usize = 2 << 20;
/// Nor more lines of them: each is two files to read.
const LINES: usize = 120;

/// What the images show, and how many figures did not fit.
pub(crate) fn about(left_out: usize) -> String {
    let left_out = match left_out {
        0 => String::new(),
        1 => " One more attack is left out to keep the page small.".into(),
        more => format!(" {more} more attacks are left out to keep the page small."),
    };
    format!(
        "The first test images of each data set, whatever became of them, under each white-box attack: the strongest \
         attack first, the first seed, the checkpoint that tables show.{left_out}"
    )
}

/// One for each white-box attack on each network, in the order in which they find room, and how many did not. Lines are in
/// the order of the rows. Evaluations of earlier programs kept no images, and have none here.
pub(crate) fn of(run: &FinishedRun, rows: &[Row]) -> Result<(Vec<ExampleImages>, usize)> {
    let mut room = Room {
        characters: CHARACTERS,
        lines: LINES,
    };
    let (mut figures, mut left_out) = (Vec::new(), 0);
    for group in groups(rows) {
        let mut kept = Vec::new();
        for row in &group {
            let Some(folder) = run.folder(row).filter(|folder| folder.join(examples::FILE).exists()) else {
                continue;
            };
            if kept.len() == room.lines {
                break;
            }
            kept.push(Kept::read(folder, row)?);
        }
        if kept.is_empty() {
            left_out += usize::from(room.lines == 0);
            continue;
        }
        match figure_of(&kept, group.len(), &mut room) {
            Some(figure) => figures.push(figure),
            None => left_out += 1,
        }
    }
    ExampleImages::set_apart(&mut figures);
    Ok((figures, left_out))
}

/// What is left of the page for images.
struct Room {
    characters: usize,
    lines: usize,
}

/// White-box rows by data set, network and attack, one row of each defense. The attack that leaves least comes first,
/// then the second of each network, and so on.
fn groups(rows: &[Row]) -> Vec<Vec<&Row>> {
    type Place<'a> = (&'a str, &'a str);
    let mut networks: Vec<(Place<'_>, BTreeMap<&str, Vec<&Row>>)> = Vec::new();
    for row in rows {
        if row.kind != Kind::WhiteBox || row.status != Status::Done {
            continue;
        }
        let place = (row.dataset.as_str(), row.network.as_str());
        let at = networks
            .iter()
            .position(|(known, _)| *known == place)
            .unwrap_or_else(|| {
                networks.push((place, BTreeMap::new()));
                networks.len() - 1
            });
        let group = networks[at].1.entry(&row.attack).or_default();
        let before = |row: &Row| (row.checkpoint != Checkpoint::Best, row.seed);
        match group
            .iter_mut()
            .find(|known| (&known.defense, &known.recipe) == (&row.defense, &row.recipe))
        {
            Some(known) if before(row) < before(known) => *known = row,
            Some(_) => {}
            None => group.push(row),
        }
    }
    let mut ranked = Vec::new();
    for (place, (_, attacks)) in networks.into_iter().enumerate() {
        let mut attacks: Vec<Vec<&Row>> = attacks.into_values().collect();
        let left = |group: &Vec<&Row>| group.iter().filter_map(|row| row.accuracy).sum::<f64>() / group.len() as f64;
        attacks.sort_by(|a, b| left(a).total_cmp(&left(b)));
        ranked.extend(
            attacks
                .into_iter()
                .enumerate()
                .map(|(rank, group)| ((rank, place), group)),
        );
    }
    ranked.sort_by_key(|(at, _)| *at);
    ranked.into_iter().map(|(_, group)| group).collect()
}

/// What an evaluation kept.
struct Kept<'a> {
    row: &'a Row,
    shape: [usize; 3],
    labels: Vec<u32>,
    ids: Vec<u64>,
    clean: Vec<Vec<f32>>,
    attacked: Vec<Vec<f32>>,
    outcomes: Vec<Outcome>,
}

impl<'a> Kept<'a> {
    fn read(folder: &Path, row: &'a Row) -> Result<Self> {
        let file = folder.join(examples::FILE);
        cell_folder::read_file(folder, examples::FILE)?;
        let Examples {
            adversarial,
            clean,
            labels,
            ids,
            ..
        } = Examples::read(&file)?;
        let lacks = || format!("{} lacks its clean images or their places", file.display());
        let (clean, ids) = (clean.with_context(lacks)?, ids.with_context(lacks)?);
        let (_, channels, height, width) = adversarial.dims4()?;
        let values = |images: &Tensor| images.flatten_from(1)?.to_vec2::<f32>();
        let all = results::read_outcomes(&folder.join(results::OUTCOMES_FILE))?;
        let by_id: HashMap<u64, Outcome> = all.into_iter().map(|outcome| (outcome.example, outcome)).collect();
        let outcome = |id: &u64| {
            let found = by_id.get(id).cloned();
            found.with_context(|| format!("{} has image {id}, of which there is no outcome", file.display()))
        };
        Ok(Self {
            row,
            shape: [channels, height, width],
            outcomes: ids.iter().map(outcome).collect::<Result<_>>()?,
            clean: values(&clean)?,
            attacked: values(&adversarial)?,
            labels,
            ids,
        })
    }

    fn largest_change(&self) -> f64 {
        let pairs = self.attacked.iter().flatten().zip(self.clean.iter().flatten());
        pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    }
}

fn figure_of(kept: &[Kept<'_>], wanted: usize, room: &mut Room) -> Option<ExampleImages> {
    let first = kept.first()?;
    let class = |label: u32| class_name(&first.row.dataset, label);
    let picture = |values: &[f32]| {
        Image {
            values,
            shape: first.shape,
        }
        .pixels()
    };
    let clean: Vec<CleanImage> = (0..first.ids.len())
        .map(|i| CleanImage {
            id: first.ids[i],
            label: class(first.labels[i]),
            image: picture(&first.clean[i]),
        })
        .collect();
    let mut characters: usize = clean.iter().map(|original| original.image.address().len()).sum();
    let same: Vec<&Kept<'_>> = kept
        .iter()
        .filter(|other| (other.shape, &other.ids) == (first.shape, &first.ids))
        .collect();
    let times = magnification(
        same.iter()
            .map(|evaluation| evaluation.largest_change())
            .fold(0.0, f64::max),
    );
    let mut lines = Vec::new();
    for evaluation in same {
        let pair = |i: usize| {
            let (label, outcome) = (evaluation.labels[i], &evaluation.outcomes[i]);
            let before = outcome.predicted_clean.unwrap_or(label);
            let attacked = Image {
                values: &evaluation.attacked[i],
                shape: evaluation.shape,
            };
            AttackedImage {
                before: class(before),
                after: class(outcome.predicted),
                outcome: AttackedImage::outcome(label, before, outcome.predicted),
                change: attacked.change_from(&evaluation.clean[i], times),
                attacked: attacked.pixels(),
            }
        };
        let pairs: Vec<AttackedImage> = (0..evaluation.ids.len()).map(pair).collect();
        let more: usize = pairs.iter().map(characters_of).sum();
        if room.lines == 0 || characters + more > room.characters {
            break;
        }
        characters += more;
        room.lines -= 1;
        lines.push(AttackedImages {
            name: evaluation.row.defense.clone(),
            accuracy: evaluation
                .row
                .accuracy
                .map_or_else(String::new, |share| format!("{:.1} % correct", 100.0 * share)),
            pairs,
        });
    }
    if lines.is_empty() {
        return None;
    }
    room.characters -= characters;
    let Row {
        attack,
        dataset,
        network,
        checkpoint,
        seed,
        ..
    } = first.row;
    Some(ExampleImages {
        id: ExampleImages::id_of(dataset, network, attack),
        title: format!("{attack} on {dataset}, {network} ({checkpoint}, seed {seed})"),
        times: format!("{times:.1}").trim_end_matches(".0").to_string(),
        clean,
        note: match wanted - lines.len() {
            0 => String::new(),
            1 => "One more defense has no images here.".into(),
            more => format!("{more} more defenses have no images here."),
        },
        lines,
    })
}

/// A class by its name, or by its number where the data set has no names.
pub(super) fn class_name(dataset: &str, label: u32) -> String {
    let names = datasets::entry(dataset).ok().map(|entry| entry.classes);
    let name = names.and_then(|names| names.get(label as usize).map(|name| name.to_string()));
    name.unwrap_or_else(|| label.to_string())
}

fn characters_of(pair: &AttackedImage) -> usize {
    pair.change.address().len() + pair.attacked.address().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(network: &str, defense: &str, attack: &str, seed: u64, accuracy: f64) -> Row {
        Row {
            network: network.into(),
            defense: defense.into(),
            attack: attack.into(),
            kind: Kind::WhiteBox,
            status: Status::Done,
            checkpoint: Checkpoint::Best,
            accuracy: Some(accuracy),
            seed,
            ..Row::default()
        }
    }

    #[test]
    fn the_strongest_attack_of_each_network_comes_first_and_the_first_seed() {
        let last = Row {
            checkpoint: Checkpoint::Last,
            ..row("a", "mart", "pgd", 0, 0.1)
        };
        let rows = [
            row("a", "mart", "fgsm", 1, 0.6),
            last,
            row("a", "mart", "pgd", 1, 0.4),
            row("a", "mart", "pgd", 0, 0.4),
            row("a", "trades", "pgd", 0, 0.5),
            row("b", "mart", "fgsm", 0, 0.2),
        ];
        let groups = groups(&rows);
        let found: Vec<Vec<(&str, &str, u64)>> = groups
            .iter()
            .map(|group| {
                group
                    .iter()
                    .map(|row| (&row.network[..], &row.attack[..], row.seed))
                    .collect()
            })
            .collect();
        assert_eq!(
            found,
            [
                vec![("a", "pgd", 0), ("a", "pgd", 0)],
                vec![("b", "fgsm", 0)],
                vec![("a", "fgsm", 1)]
            ]
        );
        assert!(groups[0].iter().all(|row| row.checkpoint == Checkpoint::Best));
    }
}
