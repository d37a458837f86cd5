//! What a file can ask for is bounded by its length. Alone in its program: every allocation counts.

use std::path::Path;

use fuzz::targets;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn memory_is_bounded_by_the_length_of_the_file() {
    for target in targets() {
        let mut files = target.seeds.clone();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            files.push(std::fs::read(entry.unwrap().path()).unwrap());
        }
        files.extend((0..200).map(|index| target.input(index).bytes));
        for bytes in files {
            MEMORY.reset_peak_usage();
            let before = MEMORY.current_usage();
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target.check_bytes(&bytes)));
            let taken = MEMORY.peak_usage().saturating_sub(before);
            let allowed = target.allowance(bytes.len());
            assert!(
                taken <= allowed,
                "{}: {taken} bytes for a file of {}, {allowed} allowed",
                target.name,
                bytes.len()
            );
        }
    }
}
