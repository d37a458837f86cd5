//! `rampart submit --slurm`: against a real Slurm on this machine where there is one, and everywhere
//! against a stand-in that runs each job as it is submitted.

#![cfg(unix)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Place, SMALL, UNLABELED, bytes};

#[track_caller]
fn same(one: &Place, other: &Place) {
    for file in [
        "results.parquet",
        "per_example.parquet",
        "tables/white-box.csv",
        "tables/black-box.tex",
    ] {
        let file = format!("runs/small/{file}");
        assert_eq!(bytes(&one.path(&file)), bytes(&other.path(&file)), "{file}");
    }
}

/// Puts an executable script into a folder of its own; returns a PATH that finds it first.
fn stand_in(place: &Place, name: &str, script: &str) -> String {
    let folder = place.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(name);
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", folder.display())
}

/// Runs the program with an environment variable; returns code, stdout and stderr.
fn with(place: &Place, variable: &str, value: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = place.harness(arguments).env(variable, value).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Notes what it is asked, and runs every task of the job at once: what a job waits for was
/// submitted before it, and so has ended.
const RUNS_AT_ONCE: &str = r#"#!/bin/bash
[ "$1" = --version ] && exit 0
here=$(dirname "$0")
script=${@: -1}
echo "$@" >> "$here/asked"
id=$(wc -l < "$here/asked")
array=$(sed -n 's/^#SBATCH --array=\([^%]*\).*/\1/p' "$script")
if [ -z "$array" ]; then
    bash "$script" >> "$here/log" 2>&1
fi
for range in ${array//,/ }; do
    for index in $(seq "${range%-*}" "${range#*-}"); do
        SLURM_ARRAY_TASK_ID=$index bash "$script" >> "$here/log" 2>&1
    done
done
echo "$id;cluster"
"#;

#[test]
fn every_task_computes_its_cells_and_the_last_job_typesets() {
    let (one, submitted) = (Place::new(SMALL), Place::new(SMALL));
    one.expect(0, &["m.yaml"]);
    let path = stand_in(&submitted, "sbatch", RUNS_AT_ONCE);
    let submit = [
        "submit",
        "m.yaml",
        "--slurm",
        "--cpus-per-task",
        "1",
        "--sbatch",
        "train:--mem=1G",
    ];
    let (code, out, err) = with(&submitted, "PATH", &path, &submit);
    let log = || std::fs::read_to_string(submitted.path("bin/log")).unwrap_or_default();
    assert_eq!(code, 0, "{out}\n{err}\n{}", log());
    assert!(
        out.contains("11 cells to submit") && out.contains("11 tasks in 5 arrays"),
        "{out}"
    );
    assert!(
        log().contains("0 cells computed, 11 kept from before, 0 failed"),
        "{}",
        log()
    );
    same(&one, &submitted);
    let asked = std::fs::read_to_string(submitted.path("bin/asked")).unwrap();
    assert_eq!(asked.matches("aftercorr:1 ").count(), 3, "{asked}");
    assert_eq!(asked.matches("aftercorr:1,afterok:1_2 ").count(), 1, "{asked}");
    assert!(asked.contains("afterany:1:2:3:4:5 "), "{asked}");
    let script = |name: &str| {
        let file = submitted.path("runs/small/slurm/1").join(format!("{name}.sbatch"));
        std::fs::read_to_string(file).unwrap()
    };
    assert!(script("001-train-tiny-cnn").contains("#SBATCH --mem=1G\n"));
    assert!(!script("002-attack-tiny-cnn-best-natural").contains("--mem"));

    // `squeue` knows nothing of these jobs any more, and nothing is left.
    stand_in(&submitted, "squeue", "#!/bin/sh\n");
    let (code, out, err) = with(&submitted, "PATH", &path, &submit);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(
        out.contains("0 cells to submit, 0 queued") && out.contains("11 done"),
        "{out}"
    );
}

/// Tasks that `squeue` still lists are left to it, and what depends on them waits for them; once it
/// lists them no longer and their cells are not there, they are submitted again.
#[test]
fn what_failed_is_submitted_again_and_what_is_queued_is_not() {
    let (one, submitted) = (Place::new(SMALL), Place::new(SMALL));
    one.expect(0, &["m.yaml"]);
    let path = stand_in(&submitted, "sbatch", "#!/bin/sh\necho 7\n");
    stand_in(&submitted, "squeue", "#!/bin/sh\necho 7 0\necho 7 1\n");
    let submit = ["submit", "m.yaml", "--slurm", "--filter", "attack=natural"];
    let (code, out, err) = with(&submitted, "PATH", &path, &submit);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("4 cells to submit"), "{out}");
    let (code, out, err) = with(&submitted, "PATH", &path, &["submit", "m.yaml", "--slurm", "--dry-run"]);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("7 cells to submit, 4 queued or running already"), "{out}");
    assert!(
        out.contains("--dependency=aftercorr:7 "),
        "on the queued trainings: {out}"
    );
    stand_in(
        &submitted,
        "squeue",
        "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n",
    );
    stand_in(&submitted, "sbatch", RUNS_AT_ONCE);
    let (code, out, err) = with(&submitted, "PATH", &path, &["submit", "m.yaml", "--slurm"]);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("11 cells to submit, 0 queued"), "{out}");
    same(&one, &submitted);
}

/// `PGD-3` and `PGD-3*` make one name of a job array, and neither loses its cells.
#[test]
fn labels_of_one_name_lose_no_cell() {
    let matrix = SMALL.replace(
        "  - { name: pgd, steps: 3, step_size: 0.05 }\n",
        "  - { name: pgd, steps: 3, step_size: 0.05 }\n  - { name: pgd, steps: 3, step_size: 0.04, label: PGD-3* }\n",
    );
    let (one, submitted) = (Place::new(&matrix), Place::new(&matrix));
    one.expect(0, &["m.yaml"]);
    let path = stand_in(&submitted, "sbatch", RUNS_AT_ONCE);
    let (code, out, err) = with(&submitted, "PATH", &path, &["submit", "m.yaml", "--slurm"]);
    assert_eq!(code, 0, "{out}\n{err}");
    let results = "runs/small/results.parquet";
    assert_eq!(bytes(&one.path(results)), bytes(&submitted.path(results)));
}

#[test]
fn pupils_wait_for_their_teacher() {
    let (one, submitted) = (Place::new(UNLABELED), Place::new(UNLABELED));
    one.expect(0, &["m.yaml"]);
    let path = stand_in(&submitted, "sbatch", RUNS_AT_ONCE);
    let (code, out, err) = with(&submitted, "PATH", &path, &["submit", "m.yaml", "--slurm"]);
    assert_eq!(code, 0, "{out}\n{err}");
    let asked = std::fs::read_to_string(submitted.path("bin/asked")).unwrap();
    let of = |script: &str| asked.lines().find(|line| line.contains(script)).unwrap();
    // The teacher and the network without one are of one array, which waits for nobody.
    assert!(!of("001-train-tiny-cnn").contains("--dependency"), "{asked}");
    assert!(
        of("002-train-tiny-cnn").contains("--dependency=afterok:1_0 "),
        "{asked}"
    );
    assert!(of("003-attack").contains("--dependency=aftercorr:"), "{asked}");
    for file in ["results.parquet", "tables/unlabeled.csv"] {
        let file = format!("runs/small/{file}");
        assert_eq!(bytes(&one.path(&file)), bytes(&submitted.path(&file)), "{file}");
    }
}

#[test]
fn mistakes_are_named() {
    let place = Place::new(SMALL);
    let nowhere = place.path("bin");
    let (code, _, err) = with(
        &place,
        "PATH",
        nowhere.to_str().unwrap(),
        &["submit", "m.yaml", "--slurm"],
    );
    assert!(code == 2 && err.contains("no `sbatch` in the PATH"), "{err}");
    let (code, out, err) = with(
        &place,
        "PATH",
        nowhere.to_str().unwrap(),
        &["submit", "m.yaml", "--slurm", "--dry-run"],
    );
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("--dependency=aftercorr:<001-train-tiny-cnn>"), "{out}");
    let refuses = "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'error: invalid partition' >&2\nexit 1\n";
    let path = stand_in(&place, "sbatch", refuses);
    let (code, _, err) = with(&place, "PATH", &path, &["submit", "m.yaml", "--slurm"]);
    assert!(
        code == 2 && err.contains("sbatch refuses") && err.contains("invalid partition"),
        "{err}"
    );
    let (code, _, err) = with(
        &place,
        "PATH",
        &path,
        &["submit", "m.yaml", "--slurm", "--sbatch", "gpu:--x"],
    );
    assert!(
        code == 2 && err.contains("--sbatch gpu:--x") && err.contains("tiny-cnn"),
        "{err}"
    );
    let (code, _, err) = with(&place, "PATH", &path, &["submit", "m.yaml"]);
    assert!(code == 2 && err.contains("--slurm"), "{err}");
    // A task whose training is not there computes nothing, and says what is left.
    let list = place.path("runs/small/slurm/1/002-attack-tiny-cnn-best-natural.cells");
    let list = list.to_str().unwrap();
    let (out, _) = place.expect(3, &["run", "m.yaml", "--cells", list, "--line", "0"]);
    assert!(
        out.contains("0 cells computed") && out.contains("left to compute: digits"),
        "{out}"
    );
    let (_, err) = place.expect(2, &["run", "m.yaml", "--cells", list, "--line", "9"]);
    assert!(err.contains("no cell in line 9"), "{err}");
    let (_, err) = place.expect(
        2,
        &["run", "m.yaml", "--cells", list, "--line", "0", "--set", "seeds=[5]"],
    );
    assert!(err.contains("another") || err.contains("has changed since"), "{err}");
}

/// A Slurm of two nodes on this machine, that ends with the value.
struct Slurm {
    folder: tempfile::TempDir,
}

impl Slurm {
    /// `None`, and a line that says so, where Slurm is not installed.
    fn start() -> Option<Self> {
        let missing = ["munged", "slurmctld", "slurmd"]
            .into_iter()
            .find(|it| program(it).is_none());
        if let Some(missing) = missing {
            eprintln!("skipped: there is no `{missing}` here, so nothing is tested against a real Slurm");
            return None;
        }
        let slurm = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let folder = slurm.folder.path();
        for name in ["state", "spool-n1", "spool-n2"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.local_addr().unwrap().port(), listener)
        };
        let ports = [free(), free(), free()];
        let ports = ports.map(|(port, _)| port);
        let read = |file| std::fs::read_to_string(file).unwrap();
        let host = read("/proc/sys/kernel/hostname").trim().to_string();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let conf = CONF
            .replace("DIR", folder.to_str().unwrap())
            .replace("HOST", &host)
            .replace("USER", user.trim())
            .replace("PORT0", &ports[0].to_string())
            .replace("PORT1", &ports[1].to_string())
            .replace("PORT2", &ports[2].to_string());
        std::fs::write(slurm.conf(), conf).unwrap();
        let key = folder.join("munge.key");
        std::fs::write(&key, "any thirty-two bytes or more are a key").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let options = [
            format!("--key-file={}", at("munge.key")),
            format!("--socket={}", at("munge.socket")),
            format!("--pid-file={}", at("munged.pid")),
            format!("--log-file={}", at("munged.log")),
            format!("--seed-file={}", at("munged.seed")),
            "--force".to_string(),
        ];
        slurm.daemon("munged", &options);
        slurm.daemon("slurmctld", &["-f".into(), at("slurm.conf")]);
        for node in ["n1", "n2"] {
            slurm.daemon("slurmd", &["-f".into(), at("slurm.conf"), "-N".into(), node.into()]);
        }
        slurm.until("two nodes are idle", || {
            slurm.ask("sinfo", &["-h", "-t", "idle", "-o", "%D"]).trim() == "2"
        });
        Some(slurm)
    }

    fn conf(&self) -> PathBuf {
        self.folder.path().join("slurm.conf")
    }

    fn daemon(&self, name: &str, options: &[String]) {
        let mut command = Command::new(program(name).unwrap());
        let status = command.args(options).env("SLURM_CONF", self.conf()).status().unwrap();
        assert!(status.success(), "{name} did not start: {status}");
    }

    fn ask(&self, name: &str, options: &[&str]) -> String {
        let mut command = Command::new(program(name).unwrap());
        let output = command.args(options).env("SLURM_CONF", self.conf()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let start = Instant::now();
        while !reached() {
            let log = || {
                let logs = ["ctld.log", "n1.log", "n2.log"].map(|name| {
                    let text = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                    let last: Vec<&str> = text.lines().rev().take(15).collect();
                    format!("{name}:\n{}\n", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
                });
                format!("{}{}", self.ask("squeue", &[]), logs.concat())
            };
            assert!(start.elapsed() < Duration::from_secs(240), "never: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn idle(&self) -> bool {
        self.ask("squeue", &["-h", "-o", "%i"]).trim().is_empty()
    }

    #[track_caller]
    fn submit(&self, place: &Place) -> String {
        let submit = ["submit", "m.yaml", "--slurm", "--cpus-per-task", "1"];
        let (code, out, err) = with(place, "SLURM_CONF", self.conf().to_str().unwrap(), &submit);
        assert_eq!(code, 0, "{out}\n{err}");
        out
    }

    /// As if the machine had lost its power: the daemon, what it started, and what that started.
    fn kill_node(&self, node: &str, task: u64) {
        let pid = |file: &str| std::fs::read_to_string(self.folder.path().join(file)).unwrap();
        let step = parent(task);
        kill("-KILL", pid(&format!("{node}.pid")).trim());
        kill("-KILL", &step.to_string());
        kill("-KILL", &task.to_string());
        // What slurmctld finds out itself after its SlurmdTimeout.
        self.ask(
            "scontrol",
            &["update", &format!("nodename={node}"), "state=down", "reason=killed"],
        );
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.ask("scancel", &["--state=PENDING,RUNNING", "--full", "--partition=main"]);
        let start = Instant::now();
        while !self.idle() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(100));
        }
        for name in ["n1.pid", "n2.pid", "ctld.pid", "munged.pid"] {
            if let Ok(pid) = std::fs::read_to_string(self.folder.path().join(name)) {
                kill("-TERM", pid.trim());
                let start = Instant::now();
                while Path::new("/proc").join(pid.trim()).exists() && start.elapsed() < Duration::from_secs(10) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

const CONF: &str = "\
ClusterName=test
SlurmctldHost=HOST(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=DIR/munge.socket
CredType=cred/munge
SlurmUser=USER
SlurmdUser=USER
SlurmctldPort=PORT0
StateSaveLocation=DIR/state
SlurmdSpoolDir=DIR/spool-%n
SlurmctldPidFile=DIR/ctld.pid
SlurmdPidFile=DIR/%n.pid
SlurmctldLogFile=DIR/ctld.log
SlurmdLogFile=DIR/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName=n1 NodeHostname=HOST NodeAddr=127.0.0.1 Port=PORT1 CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname=HOST NodeAddr=127.0.0.1 Port=PORT2 CPUs=1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
";

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn kill(signal: &str, pid: &str) {
    // What is killed may have ended already.
    let _ = Command::new("kill").args([signal, pid]).output();
}

fn parent(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// One after the other, since each wants the whole machine: a node is killed while it trains; then
/// a training is cancelled, and with it what waited for it, and submitted again.
#[test]
fn a_real_slurm_runs_loses_and_repeats_tasks() {
    let Some(slurm) = Slurm::start() else { return };
    let long = SMALL.replace("epochs: 2", "epochs: 100");
    let (one, submitted) = (Place::new(&long), Place::new(&long));
    let out = slurm.submit(&submitted);
    assert!(out.contains("11 tasks in 5 arrays submitted"), "{out}");
    let again = slurm.submit(&submitted);
    assert!(again.contains("0 cells to submit, 11 queued"), "{again}");

    let running = || -> Vec<serde_json::Value> {
        let (status, _) = submitted.expect(0, &["status", "runs/small", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["running"].as_array().unwrap().clone()
    };
    slurm.until("a training runs", || !running().is_empty());
    let task = running()[0]["process"].as_u64().unwrap();
    let environment = std::fs::read(format!("/proc/{task}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let value = |name: &str| {
        let entry = environment
            .split('\0')
            .find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        entry.expect("Slurm tells its tasks").to_string()
    };
    slurm.kill_node(&value("SLURMD_NODENAME"), task);
    let lost = value("SLURM_JOB_ID");
    let restarts = || slurm.ask("scontrol", &["show", "job", &lost]);
    slurm.until("the task is queued again", || restarts().contains("Restarts=1"));
    // Slurm would wait two minutes.
    slurm.ask("scontrol", &["update", &format!("jobid={lost}"), "StartTime=now"]);
    slurm.until("everything has ended", || slurm.idle());
    one.expect(0, &["m.yaml"]);
    same(&one, &submitted);
    let out = slurm.submit(&submitted);
    assert!(
        out.contains("0 cells to submit, 0 queued or running already, 11 done"),
        "{out}"
    );

    // Now the only training is cancelled while it runs.
    let single = long.replace("  - { name: standard, attack: { steps: 2 } }\n", "");
    let (one, submitted) = (Place::new(&single), Place::new(&single));
    let out = slurm.submit(&submitted);
    let cells = out.split_once(" cells to submit").unwrap().0.to_string();
    let begun = || std::fs::read_dir(submitted.path("runs/small/claims")).map_or(0, Iterator::count) > 0;
    slurm.until("a training runs", begun);
    let first = out.lines().find(|line| line.contains("001-train")).unwrap();
    let (first, _) = first.split_once(':').unwrap();
    slurm.ask("scancel", &[first]);
    slurm.until("what waited for it is cancelled", || slurm.idle());
    let (status, _) = submitted.expect(0, &["status", "m.yaml"]);
    assert!(status.contains(" 0 done"), "{status}");
    let out = slurm.submit(&submitted);
    assert!(out.starts_with(&format!("{cells} cells to submit")), "{out}");
    slurm.until("everything has ended", || slurm.idle());
    one.expect(0, &["m.yaml"]);
    same(&one, &submitted);
}
