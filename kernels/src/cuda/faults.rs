//! Messages for users whose machine cannot run on a GPU, from the driver's codes and the libraries' versions alone, so
//! that every message can be seen without a GPU.

use candle_core::{Result, bail};

/// Codes of the driver, as `cuda.h` numbers them.
pub(crate) mod code {
    pub(crate) const OUT_OF_MEMORY: u32 = 2;
    pub(crate) const STUB_LIBRARY: u32 = 34;
    pub(crate) const DEVICE_UNAVAILABLE: u32 = 46;
    pub(crate) const NO_DEVICE: u32 = 100;
    pub(crate) const INVALID_DEVICE: u32 = 101;
    pub(crate) const INVALID_PTX: u32 = 218;
    pub(crate) const JIT_COMPILER_NOT_FOUND: u32 = 221;
    pub(crate) const UNSUPPORTED_PTX_VERSION: u32 = 222;
    pub(crate) const SYSTEM_NOT_READY: u32 = 802;
    pub(crate) const SYSTEM_DRIVER_MISMATCH: u32 = 803;
    pub(crate) const COMPAT_NOT_SUPPORTED_ON_DEVICE: u32 = 804;
    pub(crate) const UNKNOWN: u32 = 999;
}

/// Why the driver does not start or does not open a GPU; `said` is its own text.
pub(crate) fn driver(fault: u32, said: &str) -> String {
    let known = match fault {
        code::STUB_LIBRARY => "there is no NVIDIA driver here (libcuda.so.1 is missing); install the driver",
        code::NO_DEVICE | code::INVALID_DEVICE => {
            "the NVIDIA driver sees no GPU; is one there, and does CUDA_VISIBLE_DEVICES hide it?"
        }
        code::SYSTEM_DRIVER_MISMATCH | code::COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the NVIDIA driver in the kernel is older than its library; update the driver and restart"
        }
        code::OUT_OF_MEMORY => {
            "the GPU's memory is full before anything was put there; `nvidia-smi` shows who holds it"
        }
        code::DEVICE_UNAVAILABLE => {
            "another program has the GPU for itself; `nvidia-smi -q -d COMPUTE` shows the compute mode"
        }
        code::SYSTEM_NOT_READY => "the GPU waits for its fabric manager; start nvidia-fabricmanager",
        code::UNKNOWN => "the NVIDIA driver fails without a reason, as after an update without a restart; restart",
        _ => return format!("the NVIDIA driver does not start: {said}"),
    };
    known.to_string()
}

/// Why the driver does not take compiled kernels; `said` is its own text.
pub(crate) fn module(fault: u32, said: &str) -> String {
    match fault {
        code::UNSUPPORTED_PTX_VERSION | code::INVALID_PTX | code::JIT_COMPILER_NOT_FOUND => {
            format!("the NVIDIA driver is too old for what this toolkit compiles ({said}); update the driver")
        }
        _ => format!("the NVIDIA driver refuses the kernels: {said}"),
    }
}

/// CUDA versions are 1000 · major + 10 · minor. Within a major version every driver runs every toolkit.
pub(crate) fn check_driver(found: i32, needed: i32) -> Result<()> {
    if found / 1000 < needed / 1000 {
        bail!(
            "the NVIDIA driver speaks CUDA {}.{}, this program needs {}.0 or later; update the driver",
            found / 1000,
            found % 1000 / 10,
            needed / 1000
        );
    }
    Ok(())
}

/// cuDNN's version is 10000 · major + 100 · minor + patch; 0 where it is missing.
pub(crate) fn check_cudnn(version: usize, cuda: i32) -> Result<()> {
    let cuda = cuda / 1000;
    match version {
        0 => bail!("cuDNN is missing (libcudnn.so.9); install the package nvidia-cudnn-cu{cuda} or cudnn9-cuda-{cuda}"),
        version if version < 90_000 => bail!(
            "cuDNN {}.{} is too old, 9.0 or later is needed; install the package nvidia-cudnn-cu{cuda}",
            version / 10_000,
            version % 10_000 / 100
        ),
        _ => Ok(()),
    }
}

/// `built_for`: CUDA_COMPUTE_CAP of the build, if it was set, such as 90.
pub(crate) fn check_capability(name: &str, capability: (i32, i32), built_for: Option<&str>) -> Result<()> {
    let (major, minor) = capability;
    if (major, minor) < (7, 0) {
        bail!("{name} has compute capability {major}.{minor}; 7.0 (Volta) or later is needed");
    }
    let Some(least) = built_for.and_then(|text| text.parse::<i32>().ok()) else {
        return Ok(());
    };
    if 10 * major + minor < least {
        bail!(
            "{name} has compute capability {major}.{minor}, this program was built for {}.{} and later; build it with \
             CUDA_COMPUTE_CAP={major}{minor}",
            least / 10,
            least % 10
        );
    }
    Ok(())
}

/// Whether there is a GPU with this number.
pub(crate) fn check_ordinal(ordinal: usize, count: usize) -> Result<()> {
    match count {
        0 => bail!("{}", driver(code::NO_DEVICE, "")),
        _ if ordinal >= count => bail!("there is no GPU {ordinal}; the driver sees {count}, counted from 0"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(result: Result<()>, parts: &[&str]) {
        let message = result.unwrap_err().to_string();
        let message = message.lines().next().unwrap();
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn every_fault_of_a_driver_names_a_remedy() {
        for (fault, remedy) in [
            (code::STUB_LIBRARY, "install the driver"),
            (code::NO_DEVICE, "CUDA_VISIBLE_DEVICES"),
            (code::SYSTEM_DRIVER_MISMATCH, "restart"),
            (code::COMPAT_NOT_SUPPORTED_ON_DEVICE, "update the driver"),
            (code::OUT_OF_MEMORY, "nvidia-smi"),
            (code::DEVICE_UNAVAILABLE, "compute mode"),
            (code::SYSTEM_NOT_READY, "nvidia-fabricmanager"),
            (code::UNKNOWN, "restart"),
        ] {
            let message = driver(fault, "said");
            assert!(message.contains(remedy) && !message.contains("said"), "{message}");
        }
        // Unknown codes are passed on.
        assert!(driver(12_345, "no idea").contains("no idea"));
        assert!(module(code::UNSUPPORTED_PTX_VERSION, "ptx").contains("update the driver"));
        assert!(module(12_345, "no idea").contains("no idea"));
    }

    #[test]
    fn old_drivers_are_refused_and_minor_versions_do_not_matter() {
        says(
            check_driver(12_080, 13_000),
            &["CUDA 12.8", "13.0", "update the driver"],
        );
        check_driver(13_000, 13_020).unwrap();
        check_driver(14_000, 13_000).unwrap();
    }

    #[test]
    fn a_missing_or_old_cudnn_names_its_package() {
        says(check_cudnn(0, 13_000), &["libcudnn.so.9", "nvidia-cudnn-cu13"]);
        says(check_cudnn(0, 12_080), &["nvidia-cudnn-cu12"]);
        says(check_cudnn(80_907, 13_000), &["8.9", "too old", "nvidia-cudnn-cu13"]);
        check_cudnn(91_002, 13_000).unwrap();
    }

    #[test]
    fn a_card_too_old_for_the_build_gets_build_instructions() {
        let (ampere, hopper) = ((8, 6), (9, 0));
        says(
            check_capability("A", ampere, Some("90")),
            &["8.6", "9.0", "CUDA_COMPUTE_CAP=86"],
        );
        says(check_capability("K", (3, 7), None), &["3.7", "7.0"]);
        check_capability("H", hopper, Some("90")).unwrap();
        check_capability("B", (12, 0), Some("90")).unwrap();
        check_capability("A", ampere, Some("80")).unwrap();
        check_capability("A", ampere, None).unwrap();
    }

    #[test]
    fn gpus_are_counted_from_0() {
        says(check_ordinal(2, 2), &["no GPU 2", "sees 2"]);
        says(check_ordinal(0, 0), &["CUDA_VISIBLE_DEVICES"]);
        check_ordinal(1, 2).unwrap();
    }
}
