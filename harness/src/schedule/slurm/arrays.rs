//! The job arrays of a plan: which cells are left, and which task waits for which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use plan::Cell;
use plan::Plan;
use storage::cell_folder::{self, State};

use super::book::Book;
use super::job::{Job, Kind};

/// Which part of a plan to submit.
pub(super) struct Left {
    pub(super) cells: Vec<Cell>,
    pub(super) queued: usize,
    pub(super) done: usize,
    /// It would fail again.
    pub(super) hopeless: usize,
}

pub(super) fn left(plan: &Plan, root: &Path, cells: &[Cell], book: &Book) -> Left {
    let tasks = book.tasks();
    let mut left = Left {
        cells: Vec::new(),
        queued: 0,
        done: 0,
        hopeless: 0,
    };
    let mut hopeless = BTreeSet::new();
    for &cell in cells {
        match cell_folder::cell_state(plan, root, cell) {
            State::Done => left.done += 1,
            State::Failed(failed) if failed.repeatable => {
                left.hopeless += 1;
                hopeless.insert(cell);
            }
            _ if plan.parents(cell).iter().any(|parent| hopeless.contains(parent)) => {
                left.hopeless += 1;
                hopeless.insert(cell);
            }
            _ if tasks.contains_key(plan.identity(cell).0) => left.queued += 1,
            _ => left.cells.push(cell),
        }
    }
    left
}

/// A job array to be submitted.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) network: String,
    pub(super) tasks: BTreeMap<u32, Cell>,
    /// The job whose task of the same number must have succeeded.
    target: Option<Parent>,
    /// A task that must have succeeded.
    source: Option<(Parent, u32)>,
}

/// A job that is queued already, or will be when this array is submitted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Parent {
    Known(String),
    /// Index among the arrays.
    Made(usize),
}

/// What the cells of one array have in common: its name, and what they wait for.
type Group = (String, Option<Parent>, Option<(Parent, u32)>);

/// The arrays of these cells: trainings by network, then evaluations by network and attack, and by
/// what they wait for.
pub(super) fn arrays(plan: &Plan, root: &Path, cells: &[Cell], book: &Book, largest_index: u32) -> Vec<Array> {
    let queued = book.tasks();
    let mut arrays: Vec<Array> = Vec::new();
    // Where every training that is not done will be.
    let mut place: HashMap<usize, (Parent, u32)> = HashMap::new();
    // The array that still takes cells of a kind.
    let mut open: BTreeMap<Group, usize> = BTreeMap::new();
    for &cell in cells {
        let parent = |training: usize| -> Option<(Parent, u32)> {
            let known = queued.get(plan.trainings[training].key.as_str());
            let done = || cell_folder::cell_state(plan, root, Cell::Training(training)) == State::Done;
            if known.is_none() && !place.contains_key(&training) && done() {
                return None;
            }
            let known = known.map(|(id, index)| (Parent::Known((*id).to_string()), *index));
            known.or_else(|| place.get(&training).cloned())
        };
        let (kind, network, name, target, source) = match cell {
            Cell::Training(i) => {
                let training = &plan.trainings[i];
                let teacher = training
                    .supervision
                    .teacher
                    .as_ref()
                    .and_then(|teacher| parent(teacher.training));
                let network = &training.network;
                (Kind::Train, network, format!("train-{network}"), None, teacher)
            }
            Cell::Evaluation(i) => {
                let evaluation = &plan.evaluations[i];
                let training = plan.target(evaluation);
                let target = parent(evaluation.target);
                let source = evaluation.source.as_ref().and_then(|source| parent(source.training));
                // What distinguishes it from other evaluations of the same network.
                let attack = evaluation.slug.strip_prefix(&training.slug).unwrap_or(&evaluation.slug);
                let name = format!("attack-{}{attack}", training.network);
                (Kind::Attack, &training.network, name, target, source)
            }
        };
        let group = (
            name.clone(),
            target.as_ref().map(|target| target.0.clone()),
            source.clone(),
        );
        // Tasks of evaluations have their target's number. Two labels may make one name, and so one group.
        let full = |array: &Array| match &target {
            None => array.tasks.keys().last().is_some_and(|last| *last == largest_index),
            Some((_, index)) => array.tasks.contains_key(index),
        };
        let array = match open.get(&group) {
            Some(&array) if !full(&arrays[array]) => array,
            _ => {
                arrays.push(Array {
                    kind,
                    name,
                    network: network.clone(),
                    tasks: BTreeMap::new(),
                    target: group.1.clone(),
                    source: source.clone(),
                });
                open.insert(group, arrays.len() - 1);
                arrays.len() - 1
            }
        };
        let next = arrays[array].tasks.keys().last().map_or(0, |last| last + 1);
        let index = target.map_or(next, |(_, index)| index);
        arrays[array].tasks.insert(index, cell);
        if let Cell::Training(i) = cell {
            place.insert(i, (Parent::Made(array), index));
        }
    }
    arrays
}

impl Parent {
    fn id<'a>(&'a self, made: &'a [Job]) -> &'a str {
        match self {
            Self::Known(id) => id,
            Self::Made(index) => &made[*index].id,
        }
    }
}

impl Array {
    /// The cells' keys, each in the line with its task's number.
    pub(super) fn lines(&self, plan: &Plan) -> String {
        let last = self.tasks.keys().last().map_or(0, |last| last + 1);
        let key = |index| self.tasks.get(&index).map_or("", |cell| plan.identity(*cell).0);
        (0..last).map(|index| key(index).to_string() + "\n").collect()
    }

    /// As `sbatch --array` takes them: `0-3,7`.
    pub(super) fn indices(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &index in self.tasks.keys() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => ranges.push((index, index)),
            }
        }
        let range = |(first, last): (u32, u32)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
    }

    pub(super) fn after(&self, made: &[Job]) -> Vec<String> {
        let target = self
            .target
            .as_ref()
            .map(|parent| format!("aftercorr:{}", parent.id(made)));
        let source = self.source.as_ref();
        let source = source.map(|(parent, index)| format!("afterok:{}_{index}", parent.id(made)));
        target.into_iter().chain(source).collect()
    }
}
