//! Hands a plan to Slurm as job arrays: one for the trainings of each network, one for each attack,
//! and a last job for the tables.
//!
//! A task of an attack's array has the number of its network's task, so that Slurm itself lets it
//! start as soon as that network is trained (`aftercorr`). Which cells a task computes stands in a
//! file; whether they are to be computed still, the claims and the cells on disk say. So a task that
//! Slurm starts again goes on where it was, and what failed is submitted again by the same command.

mod slurm;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::tables::RunTables;
use plan::{Cell, Methods, Plan};
use serde::{Deserialize, Serialize};

use self::slurm::Slurm;
use super::{read_matrix, resolve, select};
use crate::claims::About;
use crate::cli::SubmitArgs;
use crate::exit::{Exit, Stop};
use crate::files;
use crate::folder::{self, RunFolder, State};
use crate::tables;

/// Submits what is not finished and not queued.
pub(crate) fn main(args: &SubmitArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    if !args.slurm {
        return Err(Stop::usage("say where to submit to: `--slurm` is what there is"));
    }
    let matrix = read_matrix(&args.matrix)?;
    let (plan, _) = resolve(&matrix, &args.matrix, methods, args.data.data_dir.as_deref())?;
    let cells = plan.needed(&select(&plan, &args.select)?);
    let resources = Resources::read(args, &plan)?;
    let slurm = Slurm::find(args.dry_run)?;
    let me = About::me(Some(RunTables::of(&plan).digest()), false, args.stale_after);
    let run_folder = RunFolder::open(&args.select.out, &plan.name, me, &|line| eprintln!("{line}"))?;
    let root = absolute(run_folder.root())?;
    files::write(&root.join("matrix.yaml"), matrix.source.text.as_bytes())?;
    tables::write_spec(&root, &plan)?;

    let book = Book::read(&root, &slurm)?;
    let Left {
        cells,
        queued,
        done,
        hopeless,
    } = left(&plan, &root, &cells, &book);
    writeln!(
        out,
        "{} cells to submit, {queued} queued or running already, {done} done, {hopeless} failed for good",
        cells.len()
    )?;
    if hopeless > 0 {
        writeln!(
            out,
            "a diverged training is not tried again; change its recipe, or use `run --force`"
        )?;
    }
    if cells.is_empty() {
        return Ok(Exit::Success);
    }
    let number = book.submissions + 1;
    let folder = root.join(SLURM).join(number.to_string());
    files::make_folder(&folder.join("logs"))?;
    // The tasks read a copy, which nobody edits meanwhile.
    let copy = folder.join("matrix.yaml");
    files::write(&copy, matrix.source.text.as_bytes())?;

    let scripts = Scripts {
        args,
        plan: &plan,
        resources: &resources,
        root: &root,
        folder: &folder,
        matrix: &copy,
    };
    let mut made: Vec<Job> = Vec::new();
    for array in arrays(&plan, &root, &cells, &book, slurm.largest_index) {
        let name = format!("{:03}-{}", made.len() + 1, array.name);
        let list = folder.join(format!("{name}.cells"));
        files::write(&list, array.lines(&plan).as_bytes())?;
        let limit = args.array_limit.map_or_else(String::new, |limit| format!("%{limit}"));
        let script = scripts.write(
            &name,
            array.kind,
            Some(&array.network),
            &[format!("--array={}{limit}", array.indices())],
            &format!("--cells {} --line \"$SLURM_ARRAY_TASK_ID\"", quoted(&list)),
        )?;
        let id = slurm.submit(&script, &array.after(&made), out)?;
        let key = |(index, cell): (&u32, &Cell)| (*index, plan.identity(*cell).0.to_string());
        made.push(Job {
            id,
            tasks: array.tasks.iter().map(key).collect(),
        });
        if !args.dry_run {
            book.note(&root, number, &made)?;
        }
    }
    let mut task = "--gather".to_string();
    for filter in &args.select.filter {
        task += &format!(" --filter {}", quoted(filter));
    }
    let script = scripts.write("tables", Kind::Tables, None, &[], &task)?;
    let mut all: Vec<&str> = book.jobs.iter().chain(&made).map(|job| job.id.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    slurm.submit(&script, &[format!("afterany:{}", all.join(":"))], out)?;
    let tasks: usize = made.iter().map(|job| job.tasks.len()).sum();
    match args.dry_run {
        true => writeln!(out, "nothing was submitted; the scripts are in {}", folder.display())?,
        false => writeln!(
            out,
            "{tasks} tasks in {} arrays submitted; `harness status {}` shows how they get on",
            made.len(),
            run_folder.root().display(),
        )?,
    }
    Ok(Exit::Success)
}

const SLURM: &str = "slurm";
const JOBS: &str = "jobs.json";

/// What a job does, for the resources it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Train,
    Attack,
    Tables,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Attack => "attack",
            Self::Tables => "tables",
        }
    }
}

/// What has been submitted of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// How often.
    submissions: u64,
    /// Jobs that were queued or running when last seen.
    jobs: Vec<Job>,
}

/// A job array.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    id: String,
    /// Keys of the tasks' cells.
    tasks: BTreeMap<u32, String>,
}

impl Book {
    /// Reads it and strikes out what Slurm knows no longer.
    fn read(root: &Path, slurm: &Slurm) -> Result<Self> {
        let mut book: Self = files::read_json(&root.join(SLURM).join(JOBS))?.unwrap_or_default();
        let active = slurm.active(&book.jobs)?;
        for job in &mut book.jobs {
            let id = job.id.clone();
            job.tasks.retain(|index, _| active.contains(&(id.clone(), *index)));
        }
        book.jobs.retain(|job| !job.tasks.is_empty());
        Ok(book)
    }

    /// Writes it with what was submitted now, after every job, so that an error loses none.
    fn note(&self, root: &Path, submissions: u64, made: &[Job]) -> Result<()> {
        let jobs = self.jobs.iter().chain(made).cloned().collect();
        files::write_json(&root.join(SLURM).join(JOBS), &Self { submissions, jobs })
    }

    /// The task that computes a cell, by the cell's key.
    fn tasks(&self) -> HashMap<&str, (&str, u32)> {
        let mut tasks = HashMap::new();
        for job in &self.jobs {
            for (index, key) in &job.tasks {
                tasks.insert(key.as_str(), (job.id.as_str(), *index));
            }
        }
        tasks
    }
}

/// What of a plan is to be submitted.
struct Left {
    cells: Vec<Cell>,
    queued: usize,
    done: usize,
    /// It would fail again.
    hopeless: usize,
}

fn left(plan: &Plan, root: &Path, cells: &[Cell], book: &Book) -> Left {
    let tasks = book.tasks();
    let mut left = Left {
        cells: Vec::new(),
        queued: 0,
        done: 0,
        hopeless: 0,
    };
    let mut hopeless = BTreeSet::new();
    for &cell in cells {
        match folder::cell_state(plan, root, cell) {
            State::Done => left.done += 1,
            State::Failed(failed) if failed.repeatable => {
                left.hopeless += 1;
                hopeless.insert(cell);
            }
            _ if plan.parents(cell).iter().any(|it| hopeless.contains(it)) => {
                left.hopeless += 1;
                hopeless.insert(cell);
            }
            _ if tasks.contains_key(plan.identity(cell).0) => left.queued += 1,
            _ => left.cells.push(cell),
        }
    }
    left
}

/// A job array to come.
#[derive(Debug)]
struct Array {
    kind: Kind,
    name: String,
    network: String,
    tasks: BTreeMap<u32, Cell>,
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
fn arrays(plan: &Plan, root: &Path, cells: &[Cell], book: &Book, largest_index: u32) -> Vec<Array> {
    let queued = book.tasks();
    let mut arrays: Vec<Array> = Vec::new();
    // Where every training that is not done will be.
    let mut place: HashMap<usize, (Parent, u32)> = HashMap::new();
    // The array that still takes cells of a kind.
    let mut open: BTreeMap<Group, usize> = BTreeMap::new();
    for &cell in cells {
        let parent = |training: usize| -> Option<(Parent, u32)> {
            let known = queued.get(plan.trainings[training].key.as_str());
            let done = || folder::cell_state(plan, root, Cell::Training(training)) == State::Done;
            if known.is_none() && !place.contains_key(&training) && done() {
                return None;
            }
            let known = known.map(|(id, index)| (Parent::Known((*id).to_string()), *index));
            known.or_else(|| place.get(&training).cloned())
        };
        let (kind, network, name, target, source) = match cell {
            Cell::Training(i) => {
                let training = &plan.trainings[i];
                let teacher = training.supervision.teacher.as_ref().and_then(|it| parent(it.training));
                let network = &training.network;
                (Kind::Train, network, format!("train-{network}"), None, teacher)
            }
            Cell::Evaluation(i) => {
                let evaluation = &plan.evaluations[i];
                let training = plan.target(evaluation);
                let target = parent(evaluation.target);
                let source = evaluation.source.as_ref().and_then(|it| parent(it.training));
                // What distinguishes it from other evaluations of the same network.
                let attack = evaluation.slug.strip_prefix(&training.slug).unwrap_or(&evaluation.slug);
                let name = format!("attack-{}{attack}", training.network);
                (Kind::Attack, &training.network, name, target, source)
            }
        };
        let group = (name.clone(), target.as_ref().map(|it| it.0.clone()), source.clone());
        let full = |array: &Array| match &target {
            None => array.tasks.keys().last().is_some_and(|last| *last == largest_index),
            Some(_) => false,
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
    fn lines(&self, plan: &Plan) -> String {
        let last = self.tasks.keys().last().map_or(0, |last| last + 1);
        let key = |index| self.tasks.get(&index).map_or("", |cell| plan.identity(*cell).0);
        (0..last).map(|index| key(index).to_string() + "\n").collect()
    }

    /// As `sbatch --array` takes them: `0-3,7`.
    fn indices(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &index in self.tasks.keys() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => ranges.push((index, index)),
            }
        }
        let range = |(first, last): (u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
    }

    fn after(&self, made: &[Job]) -> Vec<String> {
        let target = self.target.as_ref().map(|it| format!("aftercorr:{}", it.id(made)));
        let source = self.source.as_ref();
        let source = source.map(|(it, index)| format!("afterok:{}_{index}", it.id(made)));
        target.into_iter().chain(source).collect()
    }
}

/// What the user asks of `sbatch`.
struct Resources {
    /// Options and for which kind of job or which network they are; `None`: for all.
    options: Vec<(Option<String>, String)>,
}

impl Resources {
    fn read(args: &SubmitArgs, plan: &Plan) -> Result<Self> {
        if args.array_limit == Some(0) || args.cpus_per_task == Some(0) {
            return Err(Stop::usage("--array-limit and --cpus-per-task must be at least 1"));
        }
        let mut options = Vec::new();
        let mut add = |of: &[Kind], option: &str, value: Option<String>| {
            for kind in of {
                options.extend(
                    value
                        .as_ref()
                        .map(|it| (Some(kind.as_str().to_string()), format!("{option}={it}"))),
                );
            }
        };
        const WORK: &[Kind] = &[Kind::Train, Kind::Attack];
        const ALL: &[Kind] = &[Kind::Train, Kind::Attack, Kind::Tables];
        add(ALL, "--partition", args.partition.clone());
        add(ALL, "--time", args.time.clone());
        add(WORK, "--cpus-per-task", args.cpus_per_task.map(|it| it.to_string()));
        add(WORK, "--gres", args.gres.clone());
        let networks: HashSet<&str> = plan.trainings.iter().map(|it| it.network.as_str()).collect();
        for option in &args.sbatch {
            if option.contains(['\n', '\r']) {
                return Err(Stop::usage("--sbatch takes one line"));
            }
            if option.starts_with('-') {
                options.push((None, option.clone()));
                continue;
            }
            let known = |what: &str| networks.contains(what) || ALL.iter().any(|kind| kind.as_str() == what);
            match option.split_once(':') {
                Some((what, option)) if known(what) && option.starts_with('-') => {
                    options.push((Some(what.to_string()), option.to_string()));
                }
                _ => {
                    let mut networks: Vec<&str> = networks.into_iter().collect();
                    networks.sort_unstable();
                    return Err(Stop::usage(format!(
                        "--sbatch {option} is neither an option of sbatch, as in `--mem=8G`, nor one for some jobs, as \
                         in `train:--mem=8G`; jobs are of `train`, `attack`, `tables`, or of a network: {}",
                        networks.join(", ")
                    )));
                }
            }
        }
        Ok(Self { options })
    }

    /// Those of one job; later ones win, as with sbatch.
    fn of<'a>(&'a self, kind: Kind, network: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let fits = move |what: &str| what == kind.as_str() || Some(what) == network;
        let fitting = self
            .options
            .iter()
            .filter(move |(what, _)| what.as_deref().is_none_or(fits));
        fitting.map(|(_, option)| option.as_str())
    }
}

/// Writes what `sbatch` is given.
struct Scripts<'a> {
    args: &'a SubmitArgs,
    plan: &'a Plan,
    resources: &'a Resources,
    root: &'a Path,
    folder: &'a Path,
    matrix: &'a Path,
}

impl Scripts<'_> {
    fn write(&self, name: &str, kind: Kind, network: Option<&str>, own: &[String], task: &str) -> Result<PathBuf> {
        let here = std::env::current_dir().context("there is no current folder")?;
        let log = match kind {
            Kind::Tables => "%x-%j.log",
            Kind::Train | Kind::Attack => "%x-%A_%a.log",
        };
        let logs = self.folder.join("logs").display().to_string().replace('%', "%%");
        let mut options = vec![
            format!("--job-name={}-{name}", self.plan.name),
            format!("--output={logs}/{log}"),
            // A task that is started again goes on in the same file.
            "--open-mode=append".to_string(),
            "--requeue".to_string(),
            format!("--chdir={}", here.display()),
            // Time enough to save where a training stands.
            "--signal=B:TERM@60".to_string(),
        ];
        options.extend_from_slice(own);
        options.extend(self.resources.of(kind, network).map(str::to_string));
        let mut text = "#!/bin/bash\n".to_string();
        for option in &options {
            let option = match option.split_once('=') {
                Some((name, value)) if value.contains(char::is_whitespace) && !value.contains('"') => {
                    format!("{name}=\"{value}\"")
                }
                _ => option.clone(),
            };
            text += &format!("#SBATCH {option}\n");
        }
        text += "# In place of the shell, so that the signal arrives.\n";
        text += &format!("exec {} {task}\n", self.command()?);
        let file = self.folder.join(format!("{name}.sbatch"));
        files::write(&file, text.as_bytes())?;
        Ok(file)
    }

    fn command(&self) -> Result<String> {
        let args = self.args;
        let program = std::env::current_exe().context("the program does not know where it lies")?;
        let mut words = vec![quoted(&program), "run".into(), quoted(self.matrix)];
        let mut add = |option: &str, value: String| words.extend([option.to_string(), value]);
        for set in &args.matrix.set {
            add("--set", quoted(set));
        }
        for (option, value) in [
            ("--limit", args.matrix.limit.map(|it| it.to_string())),
            ("--seed", args.matrix.seed.map(|it| it.to_string())),
            ("--precision", args.precision.map(|it| it.to_string())),
        ] {
            if let Some(value) = value {
                add(option, value);
            }
        }
        if let Some(folder) = &args.data.data_dir {
            add("--data-dir", quoted(&absolute(folder)?));
        }
        add("--out", quoted(self.root.parent().context("a run lies in a folder")?));
        add("--device", quoted(&args.device));
        add("--stale-after", args.stale_after.to_string());
        add("--jobs", "1".into());
        add(
            "--threads",
            "\"${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}\"".into(),
        );
        if args.deterministic {
            words.push("--deterministic".into());
        }
        Ok(words.join(" "))
    }
}

/// A path that means the same on every node.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}

/// A word for the shell.
fn quoted(word: impl AsRef<std::ffi::OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+,:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
