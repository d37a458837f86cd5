use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use plan::matrix::SelectionSplit;
use plan::{Cell, Digests, Evaluation, Methods, Plan};
use results::{Outcome, Row};
use serde_json::json;

use super::read_matrix;
use crate::cli::MatrixArgs;
use crate::evaluation::SLACK;
use crate::exit::{Exit, Stop};
use crate::folder::{self, FileMark, State};
use crate::lessons;
use crate::manifest::{self, Manifest, PlanFacts};
use crate::run::data_key;
use crate::tables;
use crate::training;

/// What to check.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// The folder of a run, such as `runs/digits`.
    pub(crate) run: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Raised whenever a rule is added or says something otherwise.
const RULES_VERSION: u32 = 2;

/// A rule: its name, what it says, and what finds the breaches.
type Rule = (&'static str, &'static str, fn(&Evidence, &mut Findings) -> Result<()>);

/// The rules after the first, that the manifest is as it was written. They need it.
const RULES: [Rule; 10] = [
    (
        "files",
        "every file is what was written, none is missing, none is foreign",
        files,
    ),
    ("plan", "matrix, options and data give the plan that was run", plan),
    ("complete", "every cell the matrix asks for is finished", complete),
    (
        "rows",
        "each row is its cell's, and counts what the cell says of each image",
        rows,
    ),
    (
        "threat",
        "no perturbation is larger than the threat model allows",
        threat,
    ),
    (
        "selection",
        "checkpoints are those their rule chooses, and rows say on what",
        selection,
    ),
    (
        "teachers",
        "what each teacher said is on record, and it is the checkpoint that the matrix names",
        teachers,
    ),
    (
        "data",
        "every row names the data that were read, and whether they are the published ones",
        data,
    ),
    ("derived", "results and tables follow from the cells", derived),
    ("source", "every cell was made by an invocation on record", source),
];

/// More breaches of one rule are counted and not shown.
const SHOWN: usize = 20;

/// What the rules look at.
struct Evidence {
    root: PathBuf,
    manifest: Manifest,
    /// `Err`: why the matrix does not resolve.
    plan: Result<Plan, String>,
}

/// What a rule finds.
#[derive(Debug, Default)]
struct Findings {
    breaches: Vec<String>,
    /// What a reader should know although no rule is broken.
    notes: Vec<String>,
}

impl Findings {
    fn breach(&mut self, text: impl Into<String>) {
        self.breaches.push(text.into());
    }
}

/// One rule's outcome. `None`: it could not be looked at.
struct Verdict {
    name: &'static str,
    says: &'static str,
    findings: Option<Findings>,
}

/// Applies every rule to a run. Reads nothing but the run's folder.
pub(crate) fn main(args: &CheckArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let verdicts = verdicts(&args.run, methods)?;
    let broken = |it: &Verdict| it.findings.as_ref().is_none_or(|it| !it.breaches.is_empty());
    let kept = !verdicts.iter().any(broken);
    let seal = FileMark::of(&args.run.join(manifest::FILE)).map(|it| it.blake3).ok();
    if args.json {
        let rules = verdicts.iter().map(|verdict| {
            let findings = verdict.findings.as_ref();
            json!({
                "rule": verdict.name, "says": verdict.says, "checked": findings.is_some(),
                "kept": !broken(verdict), "breaches": findings.map(|it| &it.breaches),
                "notes": findings.map(|it| &it.notes),
            })
        });
        let report = json!({
            "version": RULES_VERSION, "run": args.run, "manifest": seal, "kept": kept,
            "rules": rules.collect::<Vec<_>>(),
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&verdicts, out)?;
        let verdict = if kept { "every rule is kept" } else { "a rule is broken" };
        writeln!(
            out,
            "{}: {verdict} (rules version {RULES_VERSION}; manifest {})",
            args.run.display(),
            seal.as_deref().unwrap_or("missing")
        )?;
    }
    Ok(if kept { Exit::Success } else { Exit::Integrity })
}

fn print(verdicts: &[Verdict], out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["rule", "", "says"]);
    for Verdict { name, says, findings } in verdicts {
        let verdict = match findings {
            None => "not checked",
            Some(findings) if findings.breaches.is_empty() => "ok",
            Some(_) => "failed",
        };
        table.add_row([*name, verdict, *says]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    for Verdict { name, findings, .. } in verdicts {
        let Some(findings) = findings else { continue };
        for breach in findings.breaches.iter().take(SHOWN) {
            writeln!(out, "{name}: {breach}")?;
        }
        if findings.breaches.len() > SHOWN {
            writeln!(out, "{name}: and {} more", findings.breaches.len() - SHOWN)?;
        }
        for note in &findings.notes {
            writeln!(out, "note: {note}")?;
        }
    }
    Ok(())
}

fn verdicts(root: &Path, methods: &Methods) -> Result<Vec<Verdict>> {
    if !root.join("cells").is_dir() {
        return Err(Stop::usage(format!(
            "{} is not the folder of a run; runs are kept in `runs/` unless --out says otherwise",
            root.display()
        )));
    }
    let mut findings = Findings::default();
    let manifest = match Manifest::read(root) {
        Ok(Some(manifest)) => Some(manifest),
        Ok(None) => {
            findings.breach(format!(
                "{} is missing; run the matrix again, to its end",
                manifest::FILE
            ));
            None
        }
        Err(error) => {
            findings.breach(format!("{error:#}"));
            None
        }
    };
    let says = "the manifest is as it was written";
    let mut verdicts = vec![Verdict {
        name: "manifest",
        says,
        findings: Some(findings),
    }];
    let evidence = manifest.map(|manifest| Evidence {
        plan: resolve(root, &manifest, methods).map_err(|error| format!("{error:#}")),
        root: root.to_path_buf(),
        manifest,
    });
    for (name, says, check) in RULES {
        let findings = evidence.as_ref().map(|evidence| {
            let mut findings = Findings::default();
            if let Err(error) = check(evidence, &mut findings) {
                findings.breach(format!("{error:#}"));
            }
            findings
        });
        verdicts.push(Verdict { name, says, findings });
    }
    Ok(verdicts)
}

/// The plan of the stored matrix, with the data's digests taken from the manifest.
fn resolve(root: &Path, manifest: &Manifest, methods: &Methods) -> Result<Plan> {
    let asked = &manifest.matrix;
    let matrix = read_matrix(&MatrixArgs {
        matrix: root.join(manifest::MATRIX),
        set: asked.set.clone(),
        limit: asked.limit,
        seed: asked.seed,
    })?;
    let mut digests = Digests::new();
    for entry in plan::resolve(&matrix, methods, asked.seed, None)?.datasets() {
        let facts = manifest.datasets.get(&data_key(entry));
        let facts = facts.with_context(|| format!("the manifest has no data set {}", entry.name))?;
        digests.insert(entry.clone(), facts.digest.clone());
    }
    Ok(plan::resolve(&matrix, methods, asked.seed, Some(&digests))?)
}

impl Evidence {
    fn plan(&self) -> Result<&Plan> {
        let plan = self.plan.as_ref();
        plan.map_err(|_| anyhow::anyhow!("cannot be checked, because the plan is unknown"))
    }

    /// The evaluations that say they are finished, with their folders. Rows and outcomes of each, or why they cannot be
    /// read.
    fn evaluations(&self) -> Result<impl Iterator<Item = (&Evaluation, PathBuf, Found)>> {
        let plan = self.plan()?;
        let done = plan.evaluations.iter().enumerate().filter_map(move |(i, evaluation)| {
            let folder = plan.folder(&self.root, Cell::Evaluation(i));
            let done = folder::status(&folder).is_ok_and(|it| it.is_some_and(|it| it.failed.is_none()));
            done.then_some((evaluation, folder))
        });
        Ok(done.map(|(evaluation, folder)| {
            let found = read_cell(&folder);
            (evaluation, folder, found)
        }))
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The row and the outcomes of an evaluation, or why they cannot be read.
type Found = Result<(Row, Vec<Outcome>)>;

fn read_cell(folder: &Path) -> Found {
    let mut rows = results::read_rows(&folder.join(results::ROWS_FILE))?;
    anyhow::ensure!(rows.len() == 1, "{} rows instead of one", rows.len());
    Ok((
        rows.remove(0),
        results::read_outcomes(&folder.join(results::OUTCOMES_FILE))?,
    ))
}

fn files(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let there: BTreeSet<String> = manifest::walk(&evidence.root)?.into_iter().collect();
    for (path, mark) in &evidence.manifest.files {
        let file = evidence.root.join(path);
        match FileMark::of(&file) {
            Ok(now) if now == *mark => {}
            Ok(_) => findings.breach(format!("{path} has changed since it was written")),
            Err(_) if !file.exists() => findings.breach(format!("{path} is missing")),
            Err(error) => findings.breach(format!("{path}: {error:#}")),
        }
    }
    for path in there.iter().filter(|path| *path != manifest::FILE) {
        if !evidence.manifest.files.contains_key(path) {
            findings.breach(format!("{path} is no file of this run"));
        }
        // The manifest takes a cell at its word; so the word itself must hold.
        if let Some(cell) = path.strip_suffix(folder::STATUS).filter(|it| it.starts_with("cells/")) {
            match folder::status(&evidence.root.join(cell)) {
                Err(error) => findings.breach(format!("{path}: {error:#}")),
                Ok(status) => {
                    for (name, mark) in status.map(|it| it.files).unwrap_or_default() {
                        if evidence.manifest.files.get(&format!("{cell}{name}")) != Some(&mark) {
                            findings.breach(format!("{path} and the manifest disagree about {name}"));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

fn plan(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(evidence.root.join(manifest::MATRIX));
    if text.ok().as_ref() != Some(&evidence.manifest.matrix.text) {
        findings.breach(format!("{} is not the matrix of the manifest", manifest::MATRIX));
    }
    match &evidence.plan {
        Err(error) => findings.breach(error.clone()),
        Ok(plan) if PlanFacts::of(plan) != evidence.manifest.plan => findings.breach(
            "the cells have other keys than those that were run: a method's version or a default has changed since; \
             check the run with the program that made it",
        ),
        Ok(_) => {}
    }
    Ok(())
}

fn complete(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let plan = evidence.plan()?;
    for cell in plan.cells() {
        let slug = plan.identity(cell).1;
        match folder::cell_state(plan, &evidence.root, cell) {
            State::Done => {}
            State::New => findings.breach(format!("{slug} was not begun")),
            State::Begun => findings.breach(format!("{slug} is not finished")),
            State::Failed(failed) => findings.breach(format!("{slug} failed: {}", failed.error)),
            State::Damaged(reason) => findings.breach(format!("{slug}: {reason}")),
        }
    }
    Ok(())
}

fn rows(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let plan = evidence.plan()?;
    let mut labels: BTreeMap<(&str, u64), u32> = BTreeMap::new();
    let mut examples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (evaluation, folder, found) in evidence.evaluations()? {
        let name = evidence.shown(&folder);
        let (row, outcomes) = match found {
            Ok(found) => found,
            Err(error) => {
                findings.breach(format!("{name}: {error:#}"));
                continue;
            }
        };
        let training = plan.target(evaluation);
        let mut same = |field: &str, same: bool| {
            if !same {
                findings.breach(format!("{name}: `{field}` is not what the matrix asks for"));
            }
        };
        same("cell", row.cell == evaluation.key && row.config_hash == evaluation.key);
        same("run", row.run == plan.name);
        same("dataset", row.dataset == training.dataset.name);
        same("network", row.network == training.network);
        same(
            "defense",
            row.defense == training.label && row.defense_name == training.defense.name,
        );
        same("defense_version", row.defense_version == training.defense.version);
        same("recipe", row.recipe == training.recipe_label);
        same("seed", row.seed == training.seed);
        same("checkpoint", row.checkpoint == evaluation.checkpoint.into());
        same(
            "attack",
            row.attack == evaluation.label && row.attack_name == evaluation.attack.name,
        );
        same("attack_version", row.attack_version == Some(evaluation.attack.version));
        same("kind", row.kind == evaluation.kind());
        let source = evaluation.source.as_ref();
        same("source", row.source.as_ref() == source.map(|it| &it.label));
        same(
            "source_checkpoint",
            row.source_checkpoint == source.map(|it| it.checkpoint.into()),
        );
        same("status", row.status == results::Status::Done && row.error.is_none());

        let mut counted = |what: &str, right: bool| {
            if !right {
                findings.breach(format!("{name}: {what}"));
            }
        };
        counted(
            "an outcome of another cell",
            outcomes.iter().all(|it| it.cell == evaluation.key),
        );
        counted(
            "an image twice",
            outcomes.windows(2).all(|it| it[0].example < it[1].example),
        );
        counted(
            "`correct` is not whether the predicted class is the true one",
            outcomes.iter().all(|it| it.correct == (it.predicted == it.label)),
        );
        let correct = outcomes.iter().filter(|it| it.correct).count() as u64;
        counted(
            "the row does not count its outcomes",
            row == row.clone().with_count(outcomes.len() as u64, correct),
        );
        let largest = outcomes.iter().map(|it| it.delta).fold(0.0, f32::max);
        counted(
            "`max_delta` is not the largest of the outcomes'",
            row.max_delta.is_some_and(|it| it as f32 == largest),
        );
        for it in &outcomes {
            let label = *labels.entry((&training.dataset.name, it.example)).or_insert(it.label);
            counted(
                &format!("image {} has another label elsewhere", it.example),
                label == it.label,
            );
        }
        let these: Vec<u64> = outcomes.iter().map(|it| it.example).collect();
        let known = examples
            .entry(data_key(&evaluation.dataset))
            .or_insert_with(|| these.clone());
        counted("other images than elsewhere", *known == these);
    }
    Ok(())
}

fn threat(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    for (evaluation, folder, found) in evidence.evaluations()? {
        let Ok((row, outcomes)) = found else { continue };
        let natural = evaluation.attack.name == "natural";
        let radius = if natural {
            0.0
        } else {
            evaluation.threat.epsilon.value()
        };
        let name = evidence.shown(&folder);
        if !natural && row.epsilon_value != Some(radius) {
            findings.breach(format!("{name}: the row's radius is not {}", evaluation.threat.epsilon));
        }
        let outside = outcomes
            .iter()
            .filter(|it| !(0.0..=radius + SLACK).contains(&f64::from(it.delta)))
            .count();
        if outside > 0 {
            findings.breach(format!("{name}: {outside} images are further away than {radius}"));
        }
    }
    Ok(())
}

fn selection(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let plan = evidence.plan()?;
    for (i, cell) in plan.trainings.iter().enumerate() {
        let folder = plan.folder(&evidence.root, Cell::Training(i));
        if folder::cell_state(plan, &evidence.root, Cell::Training(i)) != State::Done {
            continue;
        }
        for breach in training::breaches_of_selection(cell, &folder) {
            findings.breach(format!("{}: {breach}", evidence.shown(&folder)));
        }
        if cell.selection.split == Some(SelectionSplit::Test) {
            let name = &cell.slug;
            findings.notes.push(format!(
                "{name}: the best checkpoint was chosen on the test images; every table says so"
            ));
        }
    }
    for (evaluation, folder, found) in evidence.evaluations()? {
        let Ok((row, _)) = found else { continue };
        let training = plan.target(evaluation);
        let chosen = training.selection.chose(evaluation.checkpoint);
        let name = evidence.shown(&folder);
        if row.selection != chosen {
            findings.breach(format!(
                "{name}: the row does not say on what the checkpoint was chosen"
            ));
        }
        let trained = plan.folder(&evidence.root, Cell::Training(evaluation.target));
        if let Ok(about) = training::read_about(&trained, evaluation.checkpoint)
            && row.epoch != Some(about.epoch)
        {
            findings.breach(format!("{name}: the row's epoch is not that of the checkpoint"));
        }
    }
    Ok(())
}

fn teachers(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let plan = evidence.plan()?;
    for (i, cell) in plan.trainings.iter().enumerate() {
        let Some(teacher) = &cell.supervision.teacher else {
            continue;
        };
        if folder::cell_state(plan, &evidence.root, Cell::Training(i)) != State::Done {
            continue;
        }
        let folder = plan.folder(&evidence.root, Cell::Training(i));
        let asked = plan.folder(&evidence.root, Cell::Training(teacher.training));
        let epoch = training::read_about(&asked, teacher.checkpoint).map(|about| about.epoch);
        for breach in lessons::breaches(cell, epoch.ok(), &folder) {
            findings.breach(format!("{}: {breach}", evidence.shown(&folder)));
        }
    }
    Ok(())
}

fn data(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let plan = evidence.plan()?;
    for (evaluation, folder, found) in evidence.evaluations()? {
        let Ok((row, _)) = found else { continue };
        let facts = evidence.manifest.datasets.get(&data_key(&evaluation.dataset));
        if facts.is_none_or(|it| (&it.digest, it.verified) != (&row.dataset_digest, row.verified)) {
            let name = evidence.shown(&folder);
            findings.breach(format!("{name}: the row and the manifest disagree about the data"));
        }
    }
    for training in &plan.trainings {
        let facts = evidence.manifest.datasets.get(&data_key(&training.dataset));
        if facts.is_none_or(|it| !it.verified) {
            let note = format!(
                "{} is not the published data set; every table says so",
                training.dataset.name
            );
            if !findings.notes.contains(&note) {
                findings.notes.push(note);
            }
        }
    }
    Ok(())
}

fn derived(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let again = tempfile::tempdir().context("cannot make a temporary folder")?;
    tables::derive(&evidence.root, again.path(), &tables::Changes::default())?;
    for path in manifest::walk(again.path())? {
        let (stored, fresh) = (evidence.root.join(&path), again.path().join(&path));
        let same_bytes = std::fs::read(&stored).ok() == std::fs::read(&fresh).ok();
        // Another version of the writer may pack the same values otherwise.
        let same = same_bytes
            || match path.as_str() {
                "results.parquet" => results::read_rows(&stored)? == results::read_rows(&fresh)?,
                "timings.parquet" => results::read_timings(&stored)? == results::read_timings(&fresh)?,
                "per_example.parquet" => results::read_outcomes(&stored)? == results::read_outcomes(&fresh)?,
                _ => false,
            };
        if !same {
            findings.breach(format!("{path} does not follow from the cells"));
        }
    }
    Ok(())
}

fn source(evidence: &Evidence, findings: &mut Findings) -> Result<()> {
    let invocations = &evidence.manifest.invocations;
    let known: BTreeSet<&str> = invocations.iter().map(|it| it.id.as_str()).collect();
    let plan = evidence.plan()?;
    for cell in plan.cells() {
        let folder = plan.folder(&evidence.root, cell);
        if let Ok(Some(status)) = folder::status(&folder)
            && !known.contains(status.made_by.as_str())
        {
            findings.breach(format!(
                "{} was made by {}, of which there is no record",
                evidence.shown(&folder),
                status.made_by
            ));
        }
    }
    let mut commits: BTreeMap<String, bool> = BTreeMap::new();
    for invocation in invocations {
        let commit = invocation
            .program
            .commit
            .clone()
            .unwrap_or_else(|| "an unknown commit".into());
        *commits.entry(commit).or_default() |= invocation.program.dirty == Some(true);
    }
    for (commit, dirty) in commits {
        let changed = if dirty { ", with changes that are not in it" } else { "" };
        findings.notes.push(format!("made by the program of {commit}{changed}"));
    }
    Ok(())
}
