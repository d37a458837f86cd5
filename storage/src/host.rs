//! Facts about the machine, for the table of timings and the manifest. Nothing else may depend on them.

use std::fs;
use std::sync::OnceLock;

/// The machine's name.
pub fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    name.map(|name| name.trim().to_string())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default()
}

/// Identifies this machine since it was last booted.
pub fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Machines that were copied while they ran have the same boot, and containers the same machine.
    format!("{} {}", name(), boot.trim())
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
