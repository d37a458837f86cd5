//! Valid files with bytes changed at random do no harm.

use std::path::PathBuf;

use proptest::prelude::*;
use testing::zip;

use super::{PICKLE, file, values};
use crate::checkpoint::{Checkpoint, Format};

fn good_files() -> Vec<PathBuf> {
    let listing = std::fs::read_dir(reference::vectors().join("checkpoints")).unwrap();
    let mut files: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".pt") && !name.starts_with("bad_")
    });
    files.sort();
    files
}

/// What happens to a file's bytes.
#[derive(Debug, Clone)]
enum Change {
    Truncate(prop::sample::Index),
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Change::Truncate),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<prop::sample::Index>(), 1usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

fn apply(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        if bytes.is_empty() {
            return;
        }
        match change {
            Change::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Change::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Remove(at, length) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Change::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
}

/// The pickle of a zip file, which begins right after the first header.
fn pickle_of(bytes: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(
        bytes[..]
            .windows(4)
            .position(|window| window == b"PK\x01\x02")
            .map(|at| bytes[at + 24..at + 28].try_into().unwrap())
            .unwrap(),
    );
    let start = bytes
        .windows(3)
        .position(|window| window == b"\x80\x02}" || window == b"\x80\x02c")
        .unwrap();
    &bytes[start..start + length as usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A changed zip file is refused, or holds what it held: its sums cover every content.
    #[test]
    fn changed_files_are_refused_or_unchanged(which: prop::sample::Index, changes in prop::collection::vec(change(), 1..4)) {
        let files = good_files();
        let bytes = std::fs::read(which.get(&files)).unwrap();
        let mut changed = bytes.clone();
        apply(&mut changed, &changes);
        if let Ok(found) = Checkpoint::parse(&changed) {
            // The old format has no sums; of it only the absence of panics is asked.
            if found.format == Format::Zip {
                prop_assert_eq!(values(&found), values(&Checkpoint::parse(&bytes).unwrap()));
            }
        }
    }

    /// A changed pickle with right sums around it: no panic, no tensor larger than its storage.
    #[test]
    fn changed_pickles_do_no_harm(which: prop::sample::Index, changes in prop::collection::vec(change(), 1..6)) {
        let files: Vec<_> = good_files().into_iter().filter(|file| std::fs::read(file).unwrap().starts_with(b"PK")).collect();
        let bytes = std::fs::read(which.get(&files)).unwrap();
        let mut pickle = pickle_of(&bytes).to_vec();
        apply(&mut pickle, &changes);
        let storages: Vec<(String, Vec<u8>)> = (0..123).map(|key| (format!("a/data/{key}"), vec![7; 108])).collect();
        let mut entries: Vec<(&str, &[u8])> = vec![("a/data.pkl", &pickle)];
        entries.extend(storages.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
        if let Ok(found) = Checkpoint::parse(&zip(&entries)) {
            prop_assert!(found.tensors.values().all(|tensor| tensor.elem_count() <= 108));
        }
    }

    /// A small pickle, changed: often still sound, so that what is read from it counts.
    #[test]
    fn changed_small_pickles_do_no_harm(changes in prop::collection::vec(change(), 1..4)) {
        let mut pickle = PICKLE.to_vec();
        apply(&mut pickle, &changes);
        if let Ok(found) = Checkpoint::parse(&file(&pickle)) {
            prop_assert!(found.tensors.values().all(|tensor| tensor.elem_count() <= 8));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0usize..4) {
        let starts: [&[u8]; 4] = [b"", b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x10\0\0\0\0\0\0\0{"];
        let _ = Checkpoint::parse(&[starts[start], &bytes].concat());
    }
}
