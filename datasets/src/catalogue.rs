//! The list of data sets.

use crate::entry::{Entry, Storage};
use crate::{DataError, cifar10, cifar100, digits, fashion_mnist, mnist};

static ENTRIES: [Entry; 5] = [
    digits::ENTRY,
    mnist::ENTRY,
    fashion_mnist::ENTRY,
    cifar10::ENTRY,
    cifar100::ENTRY,
];

/// Every data set, smallest first.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The data set of this name.
///
/// # Errors
/// [`DataError::UnknownName`], with the nearest name if one is near.
pub fn entry(name: &str) -> Result<&'static Entry, DataError> {
    ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names = ENTRIES.iter().map(|entry| entry.name);
        DataError::UnknownName {
            name: name.to_string(),
            hint: match suggest::nearest(name, names.clone()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("there are {}", names.collect::<Vec<_>>().join(", ")),
            },
        }
    })
}

/// The data set that has a file with this MD5.
pub(crate) fn owner(md5: &str) -> Option<&'static str> {
    let has = |entry: &&Entry| match &entry.storage {
        Storage::Embedded(_) => false,
        Storage::Idx(files) => (files.iter()).any(|file| file.packed.md5 == md5 || file.unpacked == Some(md5)),
        Storage::Cifar { train, test, .. } => train.iter().chain(*test).any(|member| member.md5 == Some(md5)),
    };
    ENTRIES.iter().find(has).map(|entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Family, Remote};

    #[test]
    fn entries_are_consistent() {
        for listed in entries() {
            assert_eq!(entry(listed.name).unwrap().name, listed.name);
            let unique: std::collections::BTreeSet<_> = listed.classes.iter().collect();
            assert_eq!(unique.len(), listed.classes.len(), "{}", listed.name);
            assert_eq!(listed.family == Family::Cifar, listed.image[0] == 3, "{}", listed.name);
            let remotes: Vec<Remote> = match &listed.storage {
                Storage::Embedded(_) => Vec::new(),
                Storage::Idx(files) => files.iter().map(|file| file.packed).collect(),
                Storage::Cifar {
                    archive,
                    train,
                    test,
                    labels,
                    ..
                } => {
                    assert_eq!(labels.last(), Some(&listed.classes.len()));
                    let record = labels.len() + listed.image.iter().product::<usize>();
                    for (members, count) in [(train, listed.train), (test, listed.test)] {
                        let bytes: u64 = members.iter().map(|member| member.size).sum();
                        assert_eq!(bytes, (count * record) as u64);
                    }
                    vec![*archive]
                }
            };
            assert_eq!(remotes.is_empty(), listed.mirrors.is_empty());
            for remote in remotes {
                assert!(remote.name.ends_with(".gz") && remote.md5.len() == 32);
            }
        }
    }

    #[test]
    fn a_checksum_tells_whose_file_it_is() {
        assert_eq!(owner("ec29112dd5afa0611ce80d1b7f02629c"), Some("mnist"));
        assert_eq!(owner("27ae3e4e09519cfbb04c329615203637"), Some("mnist"));
        assert_eq!(owner("bb300cfdad3c16e7a12a480ee83cd310"), Some("fashion-mnist"));
        assert_eq!(owner("803d5f7f4d78ea53de84dbe85f74fb6d"), Some("cifar10"));
        assert_eq!(owner("900150983cd24fb0d6963f7d28e17f72"), None);
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        let error = |name| entry(name).unwrap_err().to_string();
        assert!(error("cifar-10").ends_with("did you mean `cifar10`?"));
        assert!(error("CIFAR100").ends_with("did you mean `cifar100`?"));
        assert!(error("fashion").ends_with("did you mean `fashion-mnist`?"));
        assert!(error("mnst").ends_with("did you mean `mnist`?"));
        assert!(error("zzz").ends_with("there are digits, mnist, fashion-mnist, cifar10, cifar100"));
    }
}
