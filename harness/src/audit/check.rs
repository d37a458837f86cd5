//! Applies every rule to a run. Reads nothing but the run's folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use comfy_table::{Table, presets};
use plan::Methods;
use serde_json::{Value, json};
use storage::cell_folder::FileMark;
use storage::manifest::{self, Manifest};

use super::rules::RULES;
use super::run::{AuditedRun, Findings};
use crate::exit::Stop;

/// Raised whenever a rule is added or changed.
const RULES_VERSION: u32 = 2;

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

impl Verdict {
    fn is_broken(&self) -> bool {
        self.findings
            .as_ref()
            .is_none_or(|findings| !findings.breaches.is_empty())
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

    /// Whether no rule is broken.
    pub(crate) fn is_kept(&self) -> bool {
        !self.verdicts.iter().any(Verdict::is_broken)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let rules = self.verdicts.iter().map(|verdict| {
            let findings = verdict.findings.as_ref();
            json!({
                "rule": verdict.name, "says": verdict.says, "checked": findings.is_some(),
                "kept": !verdict.is_broken(), "breaches": findings.map(|findings| &findings.breaches),
                "notes": findings.map(|findings| &findings.notes),
            })
        });
        json!({
            "version": RULES_VERSION, "run": self.root, "manifest": self.seal, "kept": self.is_kept(),
            "rules": rules.collect::<Vec<_>>(),
        })
    }

    /// For readers.
    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        print(&self.verdicts, out)?;
        let verdict = if self.is_kept() {
            "every rule is kept"
        } else {
            "a rule is broken"
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
            "{} is not the folder of a run; runs are in `runs/` unless --out says otherwise",
            root.display()
        )));
    }
    let mut findings = Findings::default();
    let manifest = match Manifest::read(root) {
        Ok(Some(manifest)) => Some(manifest),
        Ok(None) => {
            let file = manifest::FILE;
            findings.breach(format!("{file} is missing; run the matrix again, to its end"));
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
