//! Applies every rule to a run. Reads nothing but the run's folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use comfy_table::{Table, presets};
use plan::Methods;
use serde_json::{Value, json};
use storage::cell_folder::FileMark;
use storage::manifest::{self, Invocation, Manifest};

use super::rules::RULES;
use super::run::{AuditedRun, Findings};
use crate::exit::{Exit, Stop};

/// Raised whenever a rule is added or changed.
const RULES_VERSION: u32 = 3;

/// Further violations of one rule are counted but not shown.
const SHOWN: usize = 20;

/// One rule's outcome. `None`: it could not be checked.
struct Verdict {
    name: &'static str,
    says: &'static str,
    findings: Option<Findings>,
}

/// The outcome of every rule.
pub(crate) struct Audit {
    root: PathBuf,
    verdicts: Vec<Verdict>,
    /// BLAKE3 of the manifest.
    seal: Option<String>,
}

/// How far a rule is kept, or a whole run. Later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Complete,
    /// Nothing is wrong with what is there, but cells are missing or have failed, or an invocation has no end.
    Unfinished,
    Broken,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Unfinished => "unfinished",
            Self::Broken => "broken",
        }
    }
}

impl Verdict {
    /// A rule that could not be checked says nothing; the manifest's says why.
    fn standing(&self) -> Standing {
        match &self.findings {
            Some(findings) if !findings.breaches.is_empty() => Standing::Broken,
            Some(findings) if !findings.unfinished.is_empty() => Standing::Unfinished,
            _ => Standing::Complete,
        }
    }
}

impl Audit {
    /// Applies every rule to the run in a folder.
    pub(crate) fn of(root: &Path, methods: &Methods) -> Result<Self> {
        Ok(Self {
            root: root.to_path_buf(),
            verdicts: verdicts(root, methods)?,
            seal: FileMark::of(&root.join(manifest::FILE)).map(|mark| mark.blake3).ok(),
        })
    }

    /// The worst of all rules.
    fn standing(&self) -> Standing {
        let standings = self.verdicts.iter().map(Verdict::standing);
        standings.max().unwrap_or(Standing::Complete)
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self.standing() {
            Standing::Complete => Exit::Success,
            Standing::Unfinished => Exit::CellsFailed,
            Standing::Broken => Exit::Integrity,
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let rules = self.verdicts.iter().map(|verdict| {
            let findings = verdict.findings.as_ref();
            json!({
                "rule": verdict.name, "says": verdict.says, "checked": findings.is_some(),
                "kept": findings.is_some() && verdict.standing() == Standing::Complete,
                "breaches": findings.map(|findings| &findings.breaches),
                "unfinished": findings.map(|findings| &findings.unfinished),
                "notes": findings.map(|findings| &findings.notes),
            })
        });
        json!({
            "version": RULES_VERSION, "run": self.root, "manifest": self.seal,
            "kept": self.standing() == Standing::Complete, "state": self.standing().word(),
            "rules": rules.collect::<Vec<_>>(),
        })
    }

    /// For readers.
    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        print(&self.verdicts, out)?;
        let verdict = match self.standing() {
            Standing::Complete => "every rule is kept",
            Standing::Unfinished => "not finished; no rule is broken, and the same `rampart run` continues it",
            Standing::Broken => "a rule is broken",
        };
        writeln!(
            out,
            "{}: {verdict} (rules version {RULES_VERSION}; manifest {})",
            self.root.display(),
            self.seal.as_deref().unwrap_or("missing")
        )?;
        Ok(())
    }
}

fn print(verdicts: &[Verdict], out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["rule", "", "says"]);
    for verdict in verdicts {
        let word = match &verdict.findings {
            None => "not checked",
            Some(_) => match verdict.standing() {
                Standing::Complete => "ok",
                Standing::Unfinished => "not finished",
                Standing::Broken => "failed",
            },
        };
        table.add_row([verdict.name, word, verdict.says]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    for Verdict { name, findings, .. } in verdicts {
        let Some(findings) = findings else { continue };
        for list in [&findings.breaches, &findings.unfinished] {
            for finding in list.iter().take(SHOWN) {
                writeln!(out, "{name}: {finding}")?;
            }
            if list.len() > SHOWN {
                writeln!(out, "{name}: and {} more", list.len() - SHOWN)?;
            }
        }
        for note in &findings.notes {
            writeln!(out, "note: {note}")?;
        }
    }
    Ok(())
}

/// Whether an invocation ended that writes a manifest at its end: one of a whole run, neither cut short nor of a part.
fn wrote_a_manifest(root: &Path) -> bool {
    let whole = |invocation: &Invocation| {
        let of_a_part = invocation
            .arguments
            .iter()
            .any(|argument| argument.starts_with("--cells"));
        let exit = invocation.end.as_ref().map(|end| end.exit);
        let cut_short = [Exit::Interrupted as u8, Exit::Unexpected as u8];
        !of_a_part && exit.is_some_and(|exit| !cut_short.contains(&exit))
    };
    // A record that cannot be read is damage, too.
    manifest::read_invocations(root).map_or(true, |invocations| invocations.iter().any(whole))
}

fn verdicts(root: &Path, methods: &Methods) -> Result<Vec<Verdict>> {
    if !root.join("cells").is_dir() {
        return Err(Stop::usage(format!(
            "{} is not the folder of a run; runs are in `runs/` unless --out says otherwise",
            root.display()
        )));
    }
    let mut findings = Findings::default();
    let manifest = match Manifest::read(root) {
        Ok(Some(manifest)) => Some(manifest),
        Ok(None) => {
            let file = manifest::FILE;
            let text = format!("{file} is missing; run the matrix again, to its end");
            if wrote_a_manifest(root) {
                findings.breach(text);
            } else {
                findings.unfinished(text);
            }
            None
        }
        Err(error) => {
            findings.breach(format!("{error:#}"));
            None
        }
    };
    let mut verdicts = vec![Verdict {
        name: "manifest",
        says: "the manifest is as it was written",
        findings: Some(findings),
    }];
    let run = manifest.map(|manifest| AuditedRun::new(root, manifest, methods));
    for (name, says, check) in RULES {
        let findings = run.as_ref().map(|run| {
            let mut findings = Findings::default();
            if let Err(error) = check(run, &mut findings) {
                findings.breach(format!("{error:#}"));
            }
            findings
        });
        verdicts.push(Verdict { name, says, findings });
    }
    Ok(verdicts)
}
