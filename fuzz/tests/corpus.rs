//! Every valid file is accepted, everything that ever failed is tried again, and some thousands of new inputs.

use std::path::Path;

use fuzz::{Target, Verdict, targets};

/// Inputs of each target: some seconds in all. `tools/fuzz` runs a million.
const COUNT: u64 = 300;

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: &std::path::PathBuf| (file.display().to_string(), std::fs::read(file).unwrap());
    files.iter().map(read).collect()
}

#[test]
fn valid_files_are_accepted() {
    for target in targets() {
        for (i, seed) in target.seeds.iter().enumerate() {
            assert_eq!(target.check_bytes(seed), Verdict::Accepted, "{}: seed {i}", target.name);
        }
    }
}

#[test]
fn what_ever_failed_fails_no_more() {
    let mut tried = 0;
    for target in targets() {
        for (name, bytes) in corpus(&target) {
            let verdict = target.check_bytes(&bytes);
            assert!(!matches!(verdict, Verdict::Wrong(_)), "{name}: {verdict:?}");
            tried += 1;
        }
    }
    // A folder that is not found would let everything pass.
    assert!(tried > 0, "there is no corpus");
}

#[test]
fn new_inputs_neither_panic_nor_deceive() {
    for target in targets() {
        let (mut accepted, mut refused) = (0, 0);
        for index in 0..COUNT {
            let input = target.input(index);
            let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target.check(&input)));
            match verdict {
                Ok(Verdict::Accepted) => accepted += 1,
                Ok(Verdict::Refused) => refused += 1,
                failure => panic!("{} input {index}: {failure:?}", target.name),
            }
        }
        // Damage that is always noticed, or never, tries nothing.
        assert!(
            accepted > 0 && refused > 0,
            "{}: {accepted} accepted, {refused} refused",
            target.name
        );
    }
}

/// The same number is the same input, here and everywhere.
#[test]
fn inputs_are_functions_of_their_number() {
    for (one, other) in targets().iter().zip(&targets()) {
        for index in [0, 1, 99] {
            assert_eq!(one.input(index).bytes, other.input(index).bytes, "{}", one.name);
        }
        assert_ne!(one.input(0).bytes, one.input(1).bytes, "{}", one.name);
    }
}
