//! Facts about the machine, for the table of timings and the manifest. Nothing else may depend on them.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The machine's name.
pub fn name() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    let find = || {
        let linux = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        linux
            .and_then(|name| word(&name))
            .or_else(|| answer("uname", &["-n"]))
            .or_else(|| answer("hostname", &[]))
            .unwrap_or_default()
    };
    NAME.get_or_init(find).clone()
}

/// Identifies this machine since it was last booted. Where the system does not tell, no two processes have the same one:
/// each then judges the others by their signs of life alone.
pub fn machine() -> String {
    static MACHINE: OnceLock<String> = OnceLock::new();
    // Machines that were copied while they ran have the same boot, and containers the same machine.
    MACHINE.get_or_init(|| identity(&name(), boot())).clone()
}

fn identity(name: &str, boot: Option<String>) -> String {
    let boot = boot.unwrap_or_else(|| {
        // Its keys are random, and differ from process to process.
        let random = RandomState::new().build_hasher().finish();
        format!("process {} {random:016x}", std::process::id())
    });
    format!("{name} {boot}")
}

/// What the system says that it changes at every start: Linux, macOS, then other systems with `sysctl`.
fn boot() -> Option<String> {
    let linux = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    linux
        .and_then(|boot| word(&boot))
        .or_else(|| answer("sysctl", &["-n", "kern.bootsessionuuid"]))
        .or_else(|| answer("sysctl", &["-n", "kern.boottime"]))
}

/// What a program of the system prints, if there is such a program.
fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| word(&text)).flatten()
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// The processor's model.
pub fn processor() -> String {
    // Read once: the estimate of every cell asks, and the file is long where there are many processors.
    static MODEL: OnceLock<String> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("model name"));
        let model = line.and_then(|line| line.split_once(':'));
        model
            .map_or(std::env::consts::ARCH, |(_, model)| model.trim())
            .to_string()
    });
    model.clone()
}

/// Version of the operating system's kernel.
pub fn kernel() -> Option<String> {
    Some(
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .ok()?
            .trim()
            .to_string(),
    )
}

/// Version of the NVIDIA driver.
pub fn nvidia_driver() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let mut words = text.lines().next()?.split_whitespace();
    let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    version.map(str::to_string)
}

/// Memory of the machine in bytes.
pub fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The largest resident memory of this process so far, in bytes.
pub fn peak_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Seconds since 1970-01-01T00:00:00Z.
pub fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_boot_no_two_processes_seem_to_share_a_machine() {
        assert_eq!(identity("host", Some("1".into())), identity("host", Some("1".into())));
        assert_ne!(identity("host", Some("1".into())), identity("host", Some("2".into())));
        assert_ne!(identity("", None), identity("", None));
        assert_eq!(machine(), machine());
    }

    #[test]
    fn a_program_that_is_missing_or_fails_or_is_silent_says_nothing() {
        assert_eq!(answer("no-such-program", &[]), None);
        assert_eq!(answer("false", &[]), None);
        assert_eq!(answer("true", &[]), None);
        assert!(answer("uname", &["-n"]).is_some());
    }
}
