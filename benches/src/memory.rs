//! The memory of this process, as Linux counts it.
//!
//! What libraries take before there is a network is not counted: a peak is the high-water mark less what
//! was resident before network and data were made. All in MiB; `None` where the system does not say.

use std::fs;

/// Resident now.
pub fn resident() -> Option<f64> {
    status("VmRSS:")
}

/// The most ever resident since the start or the last [`forget_peak`].
pub fn high_water() -> Option<f64> {
    status("VmHWM:")
}

/// Resets the high-water mark, so that making a network does not count. Where the system forbids
/// it, the mark stays and counts more.
pub fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_large_allocation_shows() {
        let block = std::hint::black_box(vec![1u8; 512 << 20]);
        let with = resident().unwrap();
        drop(block);
        // Linux counts in batches of pages for each thread, so no exact comparison holds.
        let most = high_water().unwrap();
        assert!(with > 500.0, "{with} MiB resident beside a block of 512 MiB");
        assert!(most > 500.0, "{most} MiB at most, with a block of 512 MiB");
    }
}
