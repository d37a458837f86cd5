//! The binary layout of CIFAR: <https://www.cs.toronto.edu/~kriz/cifar.html>.
//!
//! A file is a sequence of records: the label bytes, then red, green and blue plane, each row by row.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::dataset::check_labels;
use crate::entry::{Entry, Member, Storage, read_file};
use crate::verify::Record;
use crate::{DataError, Split, Verify, verify};

/// Training and test split, and whether all files are official.
pub(crate) fn read(entry: &Entry, root: &Path, verify: Verify) -> Result<([Split; 2], bool), DataError> {
    let Storage::Cifar {
        archive,
        folder,
        train,
        test,
        labels: label_classes,
    } = &entry.storage
    else {
        unreachable!("{} has no such layout", entry.name)
    };
    let folders = [root.join(folder), root.to_path_buf()];
    let names: Vec<Vec<&str>> = train.iter().chain(*test).map(|member| vec![member.name]).collect();
    let paths = entry.locate(&folders, &names).map_err(|missing| {
        let python = python_folder(root, folder, members(train, test));
        python.map_or(missing, |folder| DataError::Python {
            name: entry.name,
            folder,
        })
    })?;
    let record = paths[0].parent().and_then(|folder| Record::read(folder, archive.md5));

    let mut verified = true;
    let mut read_split = |members: &[Member], paths: &[PathBuf]| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (member, path) in members.iter().zip(paths) {
            let content = read_file(path)?;
            let start = labels.len();
            parse(&content, entry.image, label_classes.len(), |record_labels, image| {
                labels.push(record_labels);
                pixels.extend_from_slice(image);
            })
            .map_err(|(place, problem)| entry.damaged(path, place, problem))?;
            for (byte, &classes) in label_classes.iter().enumerate() {
                let one_kind: Vec<u32> = labels[start..].iter().map(|label| u32::from(label[byte])).collect();
                check_labels(&one_kind, classes, &format!("`{}`", path.display()))?;
            }
            let recorded = record
                .as_ref()
                .is_some_and(|record| record.covers(member.name, &content));
            verified &= recorded || verify::check(entry.name, path, &content, member.md5, verify)?;
        }
        let fine = labels.iter().map(|label| u32::from(label[label_classes.len() - 1]));
        Split::new(entry.image, 255, pixels, fine.collect())
    };
    let (train_paths, test_paths) = paths.split_at(train.len());
    let splits = [read_split(train, train_paths)?, read_split(test, test_paths)?];
    Ok((splits, verified))
}

fn members(train: &'static [Member], test: &'static [Member]) -> impl Iterator<Item = &'static str> + Clone {
    (train.iter().chain(test)).map(|member| member.name.strip_suffix(".bin").unwrap_or(member.name))
}

/// The folder with the pickles of the Python archive, if there is one: `cifar-10-batches-py` or `cifar-100-python`.
fn python_folder(root: &Path, folder: &str, names: impl Iterator<Item = &'static str> + Clone) -> Option<PathBuf> {
    let python = match folder.strip_suffix("-bin") {
        Some(start) => format!("{start}-py"),
        None => folder.replace("-binary", "-python"),
    };
    // A pickle of protocol 2 or later begins like this, of the protocols before with text.
    let is_pickle = |file: &Path| {
        let mut start = [0];
        let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && matches!(start, [0x80 | b'(' | b'}'])
    };
    let has = |folder: &PathBuf| names.clone().any(|name| is_pickle(&folder.join(name)));
    [root.join(python), root.join(folder), root.to_path_buf()]
        .into_iter()
        .find(has)
}

/// Calls `record` with the label bytes (at most 2; the rest are 0) and the pixels of each record.
pub(crate) fn parse(
    content: &[u8],
    image: [usize; 3],
    label_bytes: usize,
    mut record: impl FnMut([u8; 2], &[u8]),
) -> Result<(), (String, String)> {
    let len = label_bytes + image.iter().product::<usize>();
    if content.is_empty() || !content.len().is_multiple_of(len) {
        let problem = format!("its {} bytes are not a multiple of {len}-byte records", content.len());
        return Err(("its end".into(), problem));
    }
    for bytes in content.chunks_exact(len) {
        let (label, pixels) = bytes.split_at(label_bytes);
        let mut labels = [0; 2];
        labels[..label_bytes].copy_from_slice(label);
        record(labels, pixels);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cifar10, cifar100};
    use proptest::prelude::*;
    use std::fs;

    /// A picture that looks different under every transposition: the top row is red, the left column
    /// gets greener downwards, the pixel at row 2, column 5 is blue.
    fn picture() -> Vec<u8> {
        let mut planes = vec![0; 3072];
        planes[..32].fill(200);
        for row in 0..32 {
            planes[1024 + 32 * row] = row as u8;
        }
        planes[2048 + 2 * 32 + 5] = 255;
        planes
    }

    fn file(labels: &[&[u8]]) -> Vec<u8> {
        labels
            .iter()
            .flat_map(|label| [label, &picture()[..]].concat())
            .collect()
    }

    fn cifar10_files(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for batch in 1..=5 {
            fs::write(folder.join(format!("data_batch_{batch}.bin")), file(&[&[batch], &[0]])).unwrap();
        }
        fs::write(folder.join("test_batch.bin"), file(&[&[9]])).unwrap();
    }

    #[test]
    fn a_known_picture_keeps_its_orientation() {
        let root = tempfile::tempdir().unwrap();
        cifar10_files(&root.path().join("cifar-10-batches-bin"));
        let data = cifar10::ENTRY.read(root.path(), Verify::No).unwrap();
        assert!(!data.verified);
        assert_eq!(data.train.labels(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
        assert_eq!(data.test.labels(), [9]);
        let pixels: Vec<f32> = data.train.pixels(3).collect();
        let at = |channel: usize, row: usize, column: usize| pixels[(channel * 32 + row) * 32 + column];
        assert_eq!([at(0, 0, 31), at(0, 1, 0), at(0, 31, 31)], [200.0 / 255.0, 0.0, 0.0]);
        assert_eq!(
            [at(1, 7, 0), at(1, 31, 0), at(1, 7, 1)],
            [7.0 / 255.0, 31.0 / 255.0, 0.0]
        );
        assert_eq!([at(2, 2, 5), at(2, 5, 2)], [1.0, 0.0]);
        // The folder itself can be given.
        let folder = root.path().join("cifar-10-batches-bin");
        assert_eq!(cifar10::ENTRY.read(&folder, Verify::No).unwrap(), data);
    }

    #[test]
    fn the_fine_label_is_used() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("cifar-100-binary");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("train.bin"), file(&[&[19, 99], &[0, 42]])).unwrap();
        fs::write(folder.join("test.bin"), file(&[&[1, 2]])).unwrap();
        let data = cifar100::ENTRY.read(root.path(), Verify::No).unwrap();
        assert_eq!(data.train.labels(), [99, 42]);
        fs::write(folder.join("train.bin"), file(&[&[0, 0], &[20, 42]])).unwrap();
        let error = cifar100::ENTRY.read(root.path(), Verify::No).unwrap_err().to_string();
        assert!(error.contains("train.bin`: image 1 has label 20"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = |verify| cifar10::ENTRY.read(root.path(), verify).unwrap_err().to_string();
        cifar10_files(root.path());
        assert!(error(Verify::Yes).contains("data_batch_1.bin` is not proven"));
        fs::write(root.path().join("data_batch_4.bin"), &file(&[&[1]])[1..]).unwrap();
        assert!(error(Verify::No).contains("data_batch_4.bin` is damaged at its end: its 3072 bytes"));
        fs::write(root.path().join("data_batch_4.bin"), file(&[&[10]])).unwrap();
        assert!(error(Verify::No).contains("data_batch_4.bin`: image 0 has label 10"));
        fs::remove_file(root.path().join("data_batch_4.bin")).unwrap();
        fs::remove_file(root.path().join("test_batch.bin")).unwrap();
        let text = error(Verify::No);
        assert!(
            text.contains("cifar10: missing data_batch_4.bin, test_batch.bin"),
            "{text}"
        );
        assert!(text.contains("rampart fetch cifar10"), "{text}");
    }

    #[test]
    fn the_layout_of_the_python_archive_is_named() {
        for (entry, folder, file) in [
            (cifar10::ENTRY, "cifar-10-batches-py", "data_batch_3"),
            (cifar100::ENTRY, "cifar-100-python", "train"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join(folder);
            fs::create_dir(&folder).unwrap();
            // A folder of that name alone is none.
            let error = |root: &Path| entry.read(root, Verify::No).unwrap_err().to_string();
            assert!(error(root.path()).contains("missing"));
            fs::write(folder.join(file), b"\x80\x02}q\x00.").unwrap();
            for root in [root.path(), &folder] {
                let text = error(root);
                assert!(text.contains(&format!("`{}` holds", folder.display())), "{text}");
                assert!(
                    text.contains("pickles") && text.contains(&format!("rampart fetch {}", entry.name)),
                    "{text}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(content: Vec<u8>, label_bytes in 1usize..3) {
            let mut count = 0;
            let whole = parse(&content, [1, 2, 2], label_bytes, |_, image| {
                assert_eq!(image.len(), 4);
                count += 1;
            });
            prop_assert_eq!(whole.is_ok(), !content.is_empty() && content.len() % (label_bytes + 4) == 0);
            prop_assert!(count <= content.len());
        }
    }
}
