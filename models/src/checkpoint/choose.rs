//! Chooses among the dictionaries of a file, and among the prefixes of their names, by the names that the network has.

use std::collections::{BTreeMap, BTreeSet};

use crate::network::Network;
use crate::wide_resnet::UNUSED;

/// Under these keys training scripts keep the network.
const WRAPPERS: &[&str] = &["state_dict", "model_state_dict", "net", "model", "network"];
/// What wrappers put before every name: `module.` of DataParallel, `_orig_mod.` of torch.compile, `model.` of this
/// program's own runs.
const PREFIXES: &[&str] = &["module.", "_orig_mod.", "model."];
/// Names in an error, at most.
const LISTED: usize = 8;

/// A dictionary of a file: the keys that lead to it, and the names of its tensors.
#[derive(Debug, Clone, Default)]
pub(super) struct Names<'a> {
    pub(super) path: Vec<&'a str>,
    pub(super) tensors: BTreeSet<&'a str>,
}

/// The names of a network.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Those of parameters, without which a dictionary is no copy of the network.
    parameters: BTreeSet<String>,
    /// All names of its state.
    state: BTreeSet<String>,
}

impl Wanted {
    pub(super) fn of(network: &Network) -> Self {
        let state: BTreeSet<String> = network.state_shapes().into_iter().map(|(name, _)| name).collect();
        let statistics = ["running_mean", "running_var", "num_batches_tracked"];
        let parameter =
            |name: &&String| !name.starts_with(UNUSED) && !statistics.iter().any(|statistic| name.ends_with(statistic));
        Self {
            parameters: state.iter().filter(parameter).cloned().collect(),
            state,
        }
    }
}

/// Names of a dictionary that begin alike and go on as the network's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Copy {
    /// Which dictionary.
    at: usize,
    prefix: String,
}

/// Which names are the network's.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    /// Which dictionary.
    pub(super) at: usize,
    pub(super) prefix: String,
    /// The labels of the other copies of the network.
    pub(super) apart: Vec<String>,
    /// Names of the same dictionary that belong to other copies.
    pub(super) owned: BTreeSet<&'a str>,
    /// Paths of the dictionaries with other copies.
    pub(super) elsewhere: Vec<Vec<&'a str>>,
}

/// Why nothing was chosen.
#[derive(Debug)]
pub(super) enum Undecided {
    /// Several copies of the network, by their labels.
    Several(String, Vec<String>),
    /// Another problem.
    Problem(String),
}

impl Undecided {
    pub(super) fn problem(self) -> String {
        match self {
            Self::Several(problem, _) | Self::Problem(problem) => problem,
        }
    }
}

impl From<String> for Undecided {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// Chooses for a network. `entry` names one of several copies: its label, or a part of that between dots.
pub(super) fn for_network<'a>(
    files: &[Names<'a>],
    wanted: &Wanted,
    entry: Option<&str>,
) -> Result<Choice<'a>, Undecided> {
    let (copies, best) = copies(files, wanted);
    if let Some(entry) = entry {
        let label = |copy: &Copy| label(&files[copy.at].path, &copy.prefix);
        let found = picked(&copies, entry, label);
        return match &found[..] {
            [copy] => Ok(chosen(files, wanted, copy, &copies)),
            [] => partial(files, wanted, entry, &copies),
            several => Err(several_copies(files, several)),
        };
    }
    match (&copies[..], best) {
        ([copy], _) => Ok(chosen(files, wanted, copy, &copies)),
        ([], Some(copy)) => Ok(chosen(files, wanted, &copy, &[])),
        ([], None) => for_nothing(files).map_err(Undecided::Problem),
        (several, _) => Err(several_copies(files, several)),
    }
}

/// A picked dictionary that is no whole copy; what it lacks is reported later.
fn partial<'a>(files: &[Names<'a>], wanted: &Wanted, entry: &str, copies: &[Copy]) -> Result<Choice<'a>, Undecided> {
    let indices: Vec<usize> = (0..files.len()).collect();
    let found = picked(&indices, entry, |&at| label(&files[at].path, ""));
    if let [at] = found[..] {
        let alone = [files[at].clone()];
        let prefix = self::copies(&alone, wanted)
            .1
            .map_or_else(|| common_prefix(&files[at]), |copy| copy.prefix);
        return Ok(chosen(files, wanted, &Copy { at, prefix }, copies));
    }
    let labels = match copies {
        [] => files.iter().map(|names| label(&names.path, "")).collect(),
        _ => labels(files, copies),
    };
    Err(Undecided::Problem(format!(
        "it has no entry `{}`; there is {}",
        entry.escape_debug(),
        listed(&labels, " and ")
    )))
}

/// Chooses without a network: where training scripts keep it, or the only dictionary with tensors.
pub(super) fn for_nothing<'a>(files: &[Names<'a>]) -> Result<Choice<'a>, String> {
    let usual = |at: &usize| {
        let path = &files[*at].path;
        !path.is_empty() && path.iter().all(|key| WRAPPERS.contains(key))
    };
    let all: Vec<usize> = (0..files.len()).collect();
    let mut in_wrappers: Vec<usize> = all.iter().copied().filter(usual).collect();
    in_wrappers.sort_by_key(|at| WRAPPERS.iter().position(|key| files[*at].path.first() == Some(key)));
    let outermost = all.iter().copied().find(|at| files[*at].path.is_empty());
    let at = match (&in_wrappers[..], outermost.as_ref(), &all[..]) {
        ([at], _, _) | ([], Some(at), _) | ([], None, [at]) => *at,
        ([], None, []) => return Err("it holds no tensor".into()),
        ([], None, several) | (several, _, _) => {
            let labels: Vec<String> = several.iter().map(|at| label(&files[*at].path, "")).collect();
            return Err(format!(
                "it holds dictionaries under {}; save the right one alone",
                listed(&labels, " and ")
            ));
        }
    };
    Ok(Choice {
        at,
        prefix: common_prefix(&files[at]),
        ..Choice::default()
    })
}

/// Every whole copy of the network's parameters; and the names that match most of them.
fn copies(files: &[Names<'_>], wanted: &Wanted) -> (Vec<Copy>, Option<Copy>) {
    let mut whole = Vec::new();
    let mut best = (0, None);
    for (at, names) in files.iter().enumerate() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &names.tensors {
            let starts = [0].into_iter().chain(name.match_indices('.').map(|(dot, _)| dot + 1));
            for start in starts.filter(|start| wanted.parameters.contains(&name[*start..])) {
                *counts.entry(&name[..start]).or_default() += 1;
            }
        }
        for (prefix, count) in counts {
            let prefix = prefix.to_string();
            if count == wanted.parameters.len() {
                whole.push(Copy {
                    at,
                    prefix: prefix.clone(),
                });
            }
            if count > best.0 {
                best = (count, Some(Copy { at, prefix }));
            }
        }
    }
    (whole, best.1)
}

fn chosen<'a>(files: &[Names<'a>], wanted: &Wanted, copy: &Copy, copies: &[Copy]) -> Choice<'a> {
    let others: Vec<Copy> = copies.iter().filter(|other| *other != copy).cloned().collect();
    let mut owned = BTreeSet::new();
    for other in others.iter().filter(|other| other.at == copy.at) {
        // From where the prefixes part, everything belongs to the other: also what wraps that copy alone.
        let parts = other.prefix.split_inclusive('.').scan(0, |length, segment| {
            *length += segment.len();
            Some(*length)
        });
        let mut ends = parts.map(|length| &other.prefix[..length]);
        let apart = ends.find(|start| !copy.prefix.starts_with(*start));
        let belongs = |name: &&'a str| {
            apart.is_some_and(|apart| name.starts_with(apart))
                || (!name.starts_with(&copy.prefix) || copy.prefix.len() < other.prefix.len())
                    && name
                        .strip_prefix(&other.prefix[..])
                        .is_some_and(|rest| wanted.state.contains(rest))
        };
        owned.extend(files[copy.at].tensors.iter().copied().filter(belongs));
    }
    Choice {
        at: copy.at,
        prefix: copy.prefix.clone(),
        owned,
        apart: labels(files, &others),
        elsewhere: others.iter().map(|other| files[other.at].path.clone()).collect(),
    }
}

/// Those whose label is `entry`, or else has it between dots.
fn picked<T: Clone>(candidates: &[T], entry: &str, label: impl Fn(&T) -> String) -> Vec<T> {
    let entry = if entry == "." {
        entry
    } else {
        entry.trim_end_matches('.')
    };
    let exact: Vec<T> = candidates.iter().filter(|one| label(one) == entry).cloned().collect();
    if !exact.is_empty() {
        return exact;
    }
    let part = format!(".{entry}.");
    let has = |one: &&T| format!(".{}.", label(one)).contains(&part);
    candidates.iter().filter(has).cloned().collect()
}

/// How a copy is named: the keys that lead to it and the prefix of its names, with dots; `.` for the outermost.
fn label(path: &[&str], prefix: &str) -> String {
    let parts = path.iter().copied();
    let label = parts.chain(Some(prefix.trim_end_matches('.')).filter(|prefix| !prefix.is_empty()));
    let label = label.collect::<Vec<_>>().join(".");
    if label.is_empty() { ".".into() } else { label }
}

fn labels(files: &[Names<'_>], copies: &[Copy]) -> Vec<String> {
    let label = |copy: &Copy| label(&files[copy.at].path, &copy.prefix);
    copies.iter().map(label).collect()
}

fn several_copies(files: &[Names<'_>], copies: &[Copy]) -> Undecided {
    let begin = copies
        .iter()
        .all(|copy| copy.at == copies[0].at && !copy.prefix.is_empty());
    let problem = if begin {
        let prefixes: Vec<String> = copies.iter().map(|copy| copy.prefix.clone()).collect();
        format!(
            "every name of the network begins with {}; pick one",
            listed(&prefixes, " or ")
        )
    } else {
        let labels = labels(files, copies);
        format!(
            "it holds the network {} times, as {}; pick one",
            labels.len(),
            listed(&labels, " and ")
        )
    };
    Undecided::Several(problem, labels(files, copies))
}

fn listed(labels: &[String], and: &str) -> String {
    let shown = labels
        .iter()
        .take(LISTED)
        .map(|label| format!("`{}`", label.escape_debug()));
    let mut shown: Vec<String> = shown.collect();
    if labels.len() > LISTED {
        shown.push(format!("{} more", labels.len() - LISTED));
    }
    let last = shown.pop().unwrap_or_else(|| "nothing".into());
    match &shown[..] {
        [] => last,
        shown => format!("{}{and}{last}", shown.join(", ")),
    }
}

/// What wrappers put before every name.
fn common_prefix(names: &Names<'_>) -> String {
    let mut found = String::new();
    let all = |prefix: &str| !names.tensors.is_empty() && names.tensors.iter().all(|name| name.starts_with(prefix));
    while let Some(longer) = PREFIXES
        .iter()
        .map(|prefix| format!("{found}{prefix}"))
        .find(|longer| all(longer))
    {
        found = longer;
    }
    found
}
