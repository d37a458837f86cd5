//! The scripts that `sbatch` is given.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::Plan;
use storage::files;

use super::job::Kind;
use super::request::SubmitRequest;
use super::resources::Resources;
use super::shell::{absolute, quoted};

/// Writes what `sbatch` is given.
pub(super) struct Scripts<'a> {
    pub(super) request: &'a SubmitRequest,
    pub(super) plan: &'a Plan,
    pub(super) resources: &'a Resources,
    pub(super) root: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) matrix: &'a Path,
}

impl Scripts<'_> {
    pub(super) fn write(
        &self,
        name: &str,
        kind: Kind,
        network: Option<&str>,
        own: &[String],
        task: &str,
    ) -> Result<PathBuf> {
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
            // Time enough for a training to save its state.
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
        let request = self.request;
        let program = std::env::current_exe().context("the program does not know its own path")?;
        let mut words = vec![quoted(&program), "run".into(), quoted(self.matrix)];
        let mut add = |option: &str, value: String| words.extend([option.to_string(), value]);
        for set in &request.matrix.set {
            add("--set", quoted(set));
        }
        for (option, value) in [
            ("--limit", request.matrix.limit.map(|limit| limit.to_string())),
            ("--seed", request.matrix.seed.map(|seed| seed.to_string())),
            ("--precision", request.precision.map(|precision| precision.to_string())),
        ] {
            if let Some(value) = value {
                add(option, value);
            }
        }
        if let Some(folder) = &request.data_dir {
            add("--data-dir", quoted(&absolute(folder)?));
        }
        add(
            "--out",
            quoted(self.root.parent().context("a run has a parent folder")?),
        );
        add("--device", quoted(&request.device));
        add("--stale-after", request.stale_after.to_string());
        add("--jobs", "1".into());
        add(
            "--threads",
            "\"${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}\"".into(),
        );
        if request.deterministic {
            words.push("--deterministic".into());
        }
        Ok(words.join(" "))
    }
}
