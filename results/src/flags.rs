//! Flags: signs that a number may say less than it seems to. A flag fails nothing; it is shown beside the number.
//!
//! Some follow from one evaluation and are stored in its row ([`of_row`]); others from several rows of one checkpoint
//! ([`flags`]). Both are functions of rows alone. The number that is marked is always the one that is likely too high.
//!
//! The signs are those of Carlini et al. 2019 (arXiv:1902.06705), Athalye et al. 2018 (arXiv:1802.00420) and of
//! AutoAttack's own checks (Croce and Hein 2020, arXiv:2003.01690).

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::row::Row;
use crate::table::table;
use crate::words::{Checkpoint, Kind, Status, words};

/// The share of images at which a gradient may be zero, or a result off, before it is worth a flag.
const FEW: f64 = 0.01;
/// The share of images at which gradients may be tiny: a network may be very sure of some images.
const SOME: f64 = 0.05;
/// How far cross entropy may stay behind losses of the margin. By reports of others on ResNet-18 (CIFAR-10, 8/255; sources
/// in docs/evaluation.md) PGD-20 stands above CW by 1.6 points after adversarial training, by 2.3 to 3.1 after TRADES and by
/// 4.7 to 5.7 after MART; PGD-10 above AutoAttack by 4.1, 4.0 and 7.2.
const GAP: f64 = 0.045;
/// Fewer steps are no white-box attack that a black-box one should not beat.
const ENOUGH_STEPS: u64 = 10;
/// Fewer images are too few to say that an attack takes nothing away.
const ENOUGH_IMAGES: u64 = 100;

words! {
    /// A sign that a number may say less than it seems to.
    pub enum Flag {
        /// Gradients are zero in every pixel.
        ZeroGradients = "zero-gradients",
        /// Gradients of cross entropy are too small to follow.
        VanishingGradients = "vanishing-gradients",
        /// The network answers at random.
        RandomOutput = "random-output",
        /// The network ends in a softmax.
        SoftmaxOutput = "softmax-output",
        /// Images survive an attack without bound.
        SurvivesUnbounded = "survives-unbounded",
        /// PGD breaks more than APGD.
        PgdBelowApgd = "pgd-below-apgd",
        /// An attack without gradients breaks more than those with.
        BlackBoxBelowWhiteBox = "black-box-below-white-box",
        /// A larger radius breaks no more.
        NotFallingWithEpsilon = "not-falling-with-epsilon",
        /// More steps break less.
        NotFallingWithSteps = "not-falling-with-steps",
        /// Cross entropy breaks much less than the margin.
        CrossEntropyGap = "cross-entropy-gap",
    }
}

impl Flag {
    /// What it means, as a sentence.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::ZeroGradients => {
                "the loss has a gradient of zero at images that still stand, so attacks along gradients find nothing there"
            }
            Self::VanishingGradients => {
                "the gradient of cross entropy is so small at many images that attacks on it say little"
            }
            Self::RandomOutput => {
                "two passes of the same images differ; the accuracy is that of one draw, and attacks would have to average"
            }
            Self::SoftmaxOutput => {
                "the network returns probabilities, not logits, which flattens the gradients of every loss"
            }
            Self::SurvivesUnbounded => {
                "images survive an attack that may change them at will, so the attack does not work here"
            }
            Self::PgdBelowApgd => "PGD breaks more images than APGD does, so the search gets stuck",
            Self::BlackBoxBelowWhiteBox => {
                "an attack that sees no gradients breaks more images than every one that does: gradients are masked"
            }
            Self::NotFallingWithEpsilon => "a larger radius breaks no more images, which every working attack does",
            Self::NotFallingWithSteps => "more steps break fewer images",
            Self::CrossEntropyGap => {
                "attacks on the margin break far more images than this one on cross entropy, which overstates robustness"
            }
        }
    }
}

table! {
    /// A flag on an evaluation.
    #[derive(Debug, Clone, PartialEq)]
    pub struct RaisedFlag {
        /// Key of the evaluation cell whose number is likely too high.
        pub cell: String,
        /// Name of the data set.
        pub dataset: String,
        /// Name of the network.
        pub network: String,
        /// Label of the defense.
        pub defense: String,
        /// Seed of the training.
        pub seed: u64,
        /// The checkpoint attacked.
        pub checkpoint: Checkpoint,
        /// Label of the attack.
        pub attack: String,
        /// The sign.
        pub flag: Flag,
        /// Key of the evaluation that it was compared with.
        pub other: Option<String>,
        /// The numbers behind it.
        pub detail: String,
    }
}

/// The flags that follow from one finished evaluation alone.
pub(crate) fn of_row(row: &Row) -> Vec<Flag> {
    let mut found = Vec::new();
    let (Some(n), Some(correct)) = (row.n, row.n_correct) else {
        return found;
    };
    let above = |count: Option<u64>, share: f64| count.is_some_and(|it| it as f64 > share * n as f64);
    let stalled = match row.kind {
        Kind::Natural => row.zero_gradients,
        // An attack on the margin stops where it has won. At least so many met zeros and still stand.
        Kind::WhiteBox => row.zero_gradients.map(|it| (it + correct).saturating_sub(n)),
        Kind::Query | Kind::Transfer => None,
    };
    if above(stalled, FEW) {
        found.push(Flag::ZeroGradients);
    }
    if above(row.vanishing_gradients, SOME) {
        found.push(Flag::VanishingGradients);
    }
    if row.random_outputs.is_some_and(|it| it > 0) {
        found.push(Flag::RandomOutput);
    }
    if n > 0 && row.softmax_outputs == Some(n) {
        found.push(Flag::SoftmaxOutput);
    }
    let unbounded = row.norm.as_deref() == Some("linf") && row.epsilon_value.is_some_and(|it| it >= 1.0);
    if row.kind == Kind::WhiteBox && unbounded && above(Some(correct), FEW) {
        found.push(Flag::SurvivesUnbounded);
    }
    found
}

/// Every flag of a run: those of each row, and those that rows of one checkpoint raise together. In the order of the
/// rows; a row has each flag once at most.
pub fn flags(rows: &[Row]) -> Vec<RaisedFlag> {
    let mut found = Found::default();
    let mut checkpoints: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        if row.status != Status::Done || row.accuracy.is_none() {
            continue;
        }
        for flag in of_row(row) {
            found.raise(place, flag, None, detail(row, flag));
        }
        let target = (
            (&row.dataset, &row.dataset_digest, &row.network, &row.defense),
            (&row.recipe, row.seed, row.checkpoint),
        );
        checkpoints.entry(target).or_default().push(place);
    }
    for places in checkpoints.values() {
        pgd_below_apgd(rows, places, &mut found);
        black_box_below_white_box(rows, places, &mut found);
        not_falling_with_epsilon(rows, places, &mut found);
        not_falling_with_steps(rows, places, &mut found);
        cross_entropy_gap(rows, places, &mut found);
    }
    let raised = found.0.into_iter().map(|((place, flag), (other, detail))| {
        let row = &rows[place];
        RaisedFlag {
            cell: row.cell.clone(),
            dataset: row.dataset.clone(),
            network: row.network.clone(),
            defense: row.defense.clone(),
            seed: row.seed,
            checkpoint: row.checkpoint,
            attack: row.attack.clone(),
            flag,
            other: other.map(|it: usize| rows[it].cell.clone()),
            detail,
        }
    });
    raised.collect()
}

/// Flags by place and kind; the first reason for each is kept.
#[derive(Default)]
struct Found(BTreeMap<(usize, Flag), (Option<usize>, String)>);

impl Found {
    fn raise(&mut self, place: usize, flag: Flag, other: Option<usize>, detail: String) {
        self.0.entry((place, flag)).or_insert((other, detail));
    }
}

fn detail(row: &Row, flag: Flag) -> String {
    let of_n = |count: Option<u64>| format!("{} of {} images", count.unwrap_or(0), row.n.unwrap_or(0));
    match flag {
        Flag::ZeroGradients => of_n(row.zero_gradients),
        Flag::VanishingGradients => of_n(row.vanishing_gradients),
        Flag::RandomOutput => of_n(row.random_outputs),
        Flag::SoftmaxOutput => of_n(row.softmax_outputs),
        _ => format!("{} is left with {}", row.attack, percent(row)),
    }
}

fn percent(row: &Row) -> String {
    format!("{:.2} %", 100.0 * accuracy(row))
}

fn accuracy(row: &Row) -> f64 {
    row.accuracy.unwrap_or(0.0)
}

/// Whether the higher accuracy is higher by more than chance draws of an attack make it: by more than one image in a
/// hundred, and by more than two images. Where one attack saw fewer images, the other's accuracy must also lie outside its
/// interval: they may have been the harder ones.
fn clearly(higher: &Row, lower: &Row) -> bool {
    let by = accuracy(higher) - accuracy(lower);
    let images = higher.n.unwrap_or(0).min(lower.n.unwrap_or(0)) as f64;
    let outside = match higher.n.cmp(&lower.n) {
        Ordering::Equal => true,
        Ordering::Less => higher.accuracy_low.is_some_and(|low| accuracy(lower) < low),
        Ordering::Greater => lower.accuracy_high.is_some_and(|high| high < accuracy(higher)),
    };
    by > FEW + 1e-9 && by * images > 2.5 && outside
}

/// Two attacks under one threat model.
fn same_threat(a: &Row, b: &Row) -> bool {
    a.norm == b.norm && a.epsilon_value == b.epsilon_value
}

/// Whether the images were made on the very network that is judged.
fn own_source(row: &Row) -> bool {
    let own = format!("{} / {}", row.defense, row.network);
    row.source.as_deref() == Some(&own)
        && row.source_seed == Some(row.seed)
        && row.source_checkpoint == Some(row.checkpoint)
}

fn compared(row: &Row, other: &Row) -> String {
    let name = |it: &Row| match &it.source {
        Some(source) => format!("{} from {source}", it.attack),
        None => it.attack.clone(),
    };
    format!("{} {}, {} {}", name(row), percent(row), name(other), percent(other))
}

fn pgd_below_apgd(rows: &[Row], places: &[usize], found: &mut Found) {
    let named = |names: &[&str]| -> Vec<usize> {
        let of_kind =
            |&place: &usize| rows[place].kind == Kind::WhiteBox && names.contains(&rows[place].attack_name.as_str());
        places.iter().copied().filter(of_kind).collect()
    };
    for &strong in &named(&["apgd", "apgd-t", "auto-attack"]) {
        for &plain in &named(&["fgsm", "pgd", "mi-fgsm"]) {
            let (apgd, pgd) = (&rows[strong], &rows[plain]);
            if same_threat(apgd, pgd) && apgd.steps >= pgd.steps && clearly(apgd, pgd) {
                found.raise(strong, Flag::PgdBelowApgd, Some(plain), compared(apgd, pgd));
            }
        }
    }
}

fn black_box_below_white_box(rows: &[Row], places: &[usize], found: &mut Found) {
    for &blind in places {
        let row = &rows[blind];
        let is_blind = row.kind == Kind::Query || (row.kind == Kind::Transfer && !own_source(row));
        if !is_blind {
            continue;
        }
        let seeing = places.iter().copied().filter(|&place| {
            let it = &rows[place];
            it.kind == Kind::WhiteBox && same_threat(it, row) && it.steps.is_some_and(|steps| steps >= ENOUGH_STEPS)
        });
        let lowest = seeing.min_by(|&a, &b| accuracy(&rows[a]).total_cmp(&accuracy(&rows[b])));
        if let Some(lowest) = lowest
            && clearly(&rows[lowest], row)
        {
            let detail = compared(&rows[lowest], row);
            found.raise(lowest, Flag::BlackBoxBelowWhiteBox, Some(blind), detail);
        }
    }
}

/// What an attack is, but for its radius, steps and restarts.
fn method(row: &Row) -> impl Ord + '_ {
    let source = (&row.source, row.source_checkpoint, &row.norm);
    (row.kind, &row.attack_name, &row.loss, &row.start, source)
}

/// Rows that differ in nothing but what `key` leaves out.
fn families<'a, K: Ord>(rows: &'a [Row], places: &[usize], key: impl Fn(&'a Row) -> K) -> Vec<Vec<usize>> {
    let mut families: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for &place in places.iter().filter(|&&place| rows[place].kind != Kind::Natural) {
        families.entry(key(&rows[place])).or_default().push(place);
    }
    families.into_values().filter(|it| it.len() > 1).collect()
}

fn not_falling_with_epsilon<'a>(rows: &'a [Row], places: &[usize], found: &mut Found) {
    const FLAG: Flag = Flag::NotFallingWithEpsilon;
    let family = |row: &'a Row| (method(row), row.steps, row.restarts);
    for mut family in families(rows, places, family) {
        let radius = |place: usize| rows[place].epsilon_value.unwrap_or(0.0);
        family.sort_by(|&a, &b| radius(a).total_cmp(&radius(b)));
        rising(rows, &family, FLAG, |a, b| radius(a) < radius(b), found);
        let (first, last) = (family[0], family[family.len() - 1]);
        let enough = rows[first].n == rows[last].n && rows[last].n >= Some(ENOUGH_IMAGES);
        let alive = accuracy(&rows[last]) > FEW;
        if enough && alive && radius(last) >= 4.0 * radius(first) && rows[last].n_correct >= rows[first].n_correct {
            let detail = format!(
                "{} {} at {}, {} at {}",
                rows[last].attack,
                percent(&rows[first]),
                rows[first].epsilon.as_deref().unwrap_or("0"),
                percent(&rows[last]),
                rows[last].epsilon.as_deref().unwrap_or("0"),
            );
            found.raise(last, FLAG, Some(first), detail);
        }
    }
}

fn not_falling_with_steps<'a>(rows: &'a [Row], places: &[usize], found: &mut Found) {
    let family = |row: &'a Row| (method(row), row.epsilon_value.map(f64::to_bits), row.restarts);
    for mut family in families(rows, places, family) {
        family.sort_by_key(|&place| rows[place].steps);
        let more = |a: usize, b: usize| rows[a].steps < rows[b].steps;
        rising(rows, &family, Flag::NotFallingWithSteps, more, found);
    }
}

/// Flags each that clearly stands above one that comes before it.
fn rising(rows: &[Row], family: &[usize], flag: Flag, before: impl Fn(usize, usize) -> bool, found: &mut Found) {
    for (i, &place) in family.iter().enumerate() {
        let earlier = family[..i].iter().copied().filter(|&it| before(it, place));
        let lowest = earlier.min_by(|&a, &b| accuracy(&rows[a]).total_cmp(&accuracy(&rows[b])));
        if let Some(lowest) = lowest
            && clearly(&rows[place], &rows[lowest])
        {
            let detail = compared(&rows[place], &rows[lowest]);
            found.raise(place, flag, Some(lowest), detail);
        }
    }
}

fn cross_entropy_gap(rows: &[Row], places: &[usize], found: &mut Found) {
    let on_margin = |row: &Row| {
        let loss = row.loss.as_deref().unwrap_or_default();
        let named = ["auto-attack", "apgd-t", "fab"].contains(&row.attack_name.as_str());
        named || ["cw", "margin", "dlr"].iter().any(|it| loss.starts_with(it))
    };
    let white_box: BTreeSet<usize> = places
        .iter()
        .copied()
        .filter(|&it| rows[it].kind == Kind::WhiteBox)
        .collect();
    for &place in &white_box {
        let row = &rows[place];
        if row.loss.as_deref() != Some("cross-entropy") || row.steps.is_none_or(|steps| steps < ENOUGH_STEPS) {
            continue;
        }
        let margins = white_box
            .iter()
            .copied()
            .filter(|&it| on_margin(&rows[it]) && same_threat(&rows[it], row));
        let lowest = margins.min_by(|&a, &b| accuracy(&rows[a]).total_cmp(&accuracy(&rows[b])));
        if let Some(lowest) = lowest
            && accuracy(row) - accuracy(&rows[lowest]) > GAP + 1e-9
            && clearly(row, &rows[lowest])
        {
            let detail = compared(row, &rows[lowest]);
            found.raise(place, Flag::CrossEntropyGap, Some(lowest), detail);
        }
    }
}
