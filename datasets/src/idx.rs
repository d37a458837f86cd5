//! IDX files, the format of MNIST: <http://yann.lecun.com/exdb/mnist/>.
//!
//! Two zero bytes, the element type (8: unsigned byte), the rank, one big-endian `u32` per
//! dimension, then the elements in row-major order. Nothing may follow.

use std::io::Read;
use std::path::Path;

use flate2::bufread::GzDecoder;

use crate::checksum::md5_hex;
use crate::dataset::check_labels;
use crate::entry::{Entry, IdxFile, read_file};
use crate::{DataError, Split, Verify, verify};

/// Training and test split, and whether all files are official.
pub(crate) fn read(
    entry: &Entry,
    files: &[IdxFile; 4],
    root: &Path,
    verify: Verify,
) -> Result<([Split; 2], bool), DataError> {
    // torchvision keeps the same files under names of its own.
    let torchvision = match entry.name {
        "mnist" => "MNIST/raw",
        "fashion-mnist" => "FashionMNIST/raw",
        other => other,
    };
    let folders = [root.join(entry.name), root.join(torchvision), root.to_path_buf()];
    let names: Vec<Vec<&str>> = (files.iter())
        .map(|file| vec![file.packed.name, unpacked_name(file)])
        .collect();
    let paths = entry.locate(&folders, &names)?;

    let [channels, height, width] = entry.image;
    let mut verified = true;
    let mut splits = Vec::new();
    for (paths, files) in paths.chunks(2).zip(files.chunks(2)) {
        let mut parts = Vec::new();
        for (path, file, item) in [
            (&paths[0], &files[0], &[height, width][..]),
            (&paths[1], &files[1], &[][..]),
        ] {
            let content = read_file(path)?;
            // A browser may have unpacked a file and kept its name.
            let packed =
                path.extension().is_some_and(|extension| extension == "gz") && !content.starts_with(&[0, 0, 8]);
            let packed = packed || content.starts_with(MAGIC);
            let most = MORE * entry.train;
            let elements = if packed {
                parse_packed(&content, item, most)
            } else {
                parse(&mut &content[..], item, most)
            };
            let elements = elements.map_err(|(place, problem)| entry.damaged(path, place, problem))?;
            verified &= if packed && file.unpacked == Some(md5_hex(&unpacked(&elements, item)).as_str()) {
                true
            } else {
                let official = if packed { Some(file.packed.md5) } else { file.unpacked };
                verify::check(entry.name, path, &content, official, verify)?
            };
            parts.push(elements);
        }
        let labels: Vec<u32> = parts[1].iter().map(|&label| u32::from(label)).collect();
        let images = parts[0].len() / (channels * height * width);
        if images != labels.len() {
            let problem = format!(
                "{} labels for {images} images of `{}`",
                labels.len(),
                paths[0].display()
            );
            return Err(entry.damaged(&paths[1], "its header", problem));
        }
        check_labels(&labels, entry.classes.len(), &format!("`{}`", paths[1].display()))?;
        splits.push(Split::new(entry.image, 255, parts.swap_remove(0), labels)?);
    }
    let test = splits.remove(1);
    Ok(([splits.remove(0), test], verified))
}

pub(crate) fn unpacked_name(file: &IdxFile) -> &'static str {
    file.packed.name.strip_suffix(".gz").unwrap_or(file.packed.name)
}

/// A file that is not official may have this many times the official number of images. Without a bound a
/// small gzip file could ask for any amount of memory.
const MORE: usize = 10;

/// What is wrong, and where.
type Problem = (String, String);

/// How a gzip file begins.
const MAGIC: &[u8] = &[0x1f, 0x8b];

pub(crate) fn parse_packed(content: &[u8], item: &[usize], most: usize) -> Result<Vec<u8>, Problem> {
    if !content.starts_with(MAGIC) {
        return Err(("its start".into(), "it is not a gzip file".into()));
    }
    let mut members = Members(GzDecoder::new(content));
    let elements = parse(&mut members, item, most)?;
    match members.0.get_ref().len() {
        0 => Ok(elements),
        rest => Err(("its end".into(), format!("{rest} bytes follow the compressed data"))),
    }
}

/// The content of a gzip file, whose members are one content (RFC 1952, section 2.2).
struct Members<'a>(GzDecoder<&'a [u8]>);

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.0.read(buffer)?;
            let rest = *self.0.get_ref();
            if read > 0 || buffer.is_empty() || !rest.starts_with(MAGIC) {
                return Ok(read);
            }
            self.0 = GzDecoder::new(rest);
        }
    }
}

/// The file of which these are the elements.
fn unpacked(elements: &[u8], item: &[usize]) -> Vec<u8> {
    let count = elements.len() / item.iter().product::<usize>().max(1);
    let mut file = vec![0, 0, 8, 1 + item.len() as u8];
    for size in [count].iter().chain(item) {
        file.extend((*size as u32).to_be_bytes());
    }
    file.extend(elements);
    file
}

/// The elements of a file of at most `most` items of this shape (`[H, W]`, or `[]` for labels): `[count, …item]`.
pub(crate) fn parse(reader: &mut dyn Read, item: &[usize], most: usize) -> Result<Vec<u8>, Problem> {
    let rank = 1 + item.len();
    let mut header = vec![0; 4 + 4 * rank];
    let start = |problem: String| ("its header".to_string(), problem);
    reader
        .read_exact(&mut header)
        .map_err(|error| start(format!("{error}")))?;
    if header[..4] != [0, 0, 8, rank as u8] {
        return Err(start(format!(
            "it starts with {:?} instead of {:?}, so it is not an IDX file of {rank}-dimensional bytes",
            &header[..4],
            [0, 0, 8, rank]
        )));
    }
    let sizes: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        .collect();
    let count = sizes[0];
    if sizes[1..] != *item {
        return Err(start(format!("its images are {:?} instead of {item:?}", &sizes[1..])));
    }
    if count == 0 {
        return Err(start("it is empty".into()));
    }
    if count > most {
        return Err(start(format!(
            "it announces {count} items; more than {most} are not read"
        )));
    }
    // A header may announce anything: memory is taken only as bytes arrive.
    let len = count as u64 * item.iter().product::<usize>() as u64;
    let mut elements = Vec::new();
    let outcome = reader.take(len + 1).read_to_end(&mut elements);
    let place = || format!("byte {} of its content", header.len() + elements.len());
    match outcome {
        Err(error) => Err((place(), error.to_string())),
        Ok(_) if (elements.len() as u64) < len => {
            let problem = format!("it ends there, but its header announces {count} items ({len} bytes)");
            Err((place(), problem))
        }
        Ok(_) if elements.len() as u64 > len => {
            let problem = format!("bytes follow the {count} items that its header announces");
            Err((place(), problem))
        }
        Ok(_) => Ok(elements),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::entry::Storage;
    use crate::mnist;
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write;

    pub(crate) fn file(sizes: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, sizes.len() as u8];
        out.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
        out.extend(elements);
        out
    }

    pub(crate) fn gz(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A folder with a tiny MNIST: `n` training and one test image; unpacked images, packed labels.
    fn tiny(n: u32, labels: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("mnist");
        fs::create_dir(&folder).unwrap();
        let pixels: Vec<u8> = (0..n * 784).map(|i| (i % 251) as u8).collect();
        let write = |name: &str, content: Vec<u8>| fs::write(folder.join(name), content).unwrap();
        write("train-images-idx3-ubyte", file(&[n, 28, 28], &pixels));
        write("train-labels-idx1-ubyte.gz", gz(&file(&[labels.len() as u32], labels)));
        write("t10k-images-idx3-ubyte.gz", gz(&file(&[1, 28, 28], &[7; 784])));
        write("t10k-labels-idx1-ubyte", file(&[1], &[9]));
        root
    }

    #[test]
    fn images_and_labels_come_out_in_order() {
        let root = tiny(3, &[4, 0, 9]);
        let data = mnist::ENTRY.read(root.path(), Verify::No).unwrap();
        assert!(!data.verified);
        assert_eq!((data.train.len(), data.test.len()), (3, 1));
        assert_eq!(data.train.labels(), [4, 0, 9]);
        // Row 2, column 5 of image 1.
        assert_eq!(
            data.train.pixels(1).nth(2 * 28 + 5),
            Some(((784 + 61) % 251) as f32 / 255.0)
        );
        // The folder itself can be given, and so can torchvision's.
        let flat = mnist::ENTRY.read(&root.path().join("mnist"), Verify::No).unwrap();
        assert_eq!(flat, data);
        fs::create_dir(root.path().join("MNIST")).unwrap();
        fs::rename(root.path().join("mnist"), root.path().join("MNIST/raw")).unwrap();
        assert_eq!(mnist::ENTRY.read(root.path(), Verify::No).unwrap(), data);
    }

    #[test]
    fn files_that_are_not_official_are_refused() {
        let root = tiny(1, &[4]);
        let error = mnist::ENTRY.read(root.path(), Verify::Yes).unwrap_err().to_string();
        assert!(error.contains("train-images-idx3-ubyte"), "{error}");
        assert!(error.contains("verify: false"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error = |root: &tempfile::TempDir| mnist::ENTRY.read(root.path(), Verify::No).unwrap_err().to_string();
        let root = tiny(2, &[4, 10]);
        assert!(error(&root).contains("train-labels-idx1-ubyte.gz`: image 1 has label 10"));
        let root = tiny(2, &[4]);
        assert!(error(&root).contains("1 labels for 2 images"));
        fs::remove_file(root.path().join("mnist/t10k-labels-idx1-ubyte")).unwrap();
        let text = error(&root);
        assert!(text.contains("missing t10k-labels-idx1-ubyte.gz (looked in"), "{text}");
        assert!(text.contains("rampart fetch mnist"), "{text}");
        let empty = tempfile::tempdir().unwrap();
        assert!(error(&empty).contains("missing train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz,"));
    }

    #[test]
    fn headers_are_strict() {
        let problem = |content: &[u8], item: &[usize]| parse(&mut &content[..], item, 100).unwrap_err().1;
        assert!(problem(&[0, 0, 8], &[]).contains("fill whole buffer"));
        assert!(problem(&file(&[1, 1], &[0]), &[]).contains("starts with [0, 0, 8, 2]"));
        assert!(problem(&[0, 0, 13, 1, 0, 0, 0, 1, 0], &[]).contains("starts with"));
        assert!(problem(&file(&[1, 2, 3], &[0; 6]), &[3, 2]).contains("[2, 3] instead of [3, 2]"));
        assert!(problem(&file(&[0], &[]), &[]).contains("empty"));
        assert!(problem(&file(&[3], &[1, 2]), &[]).contains("announces 3 items"));
        assert!(problem(&file(&[3], &[1, 2, 3, 4]), &[]).contains("bytes follow"));
        assert!(problem(&file(&[u32::MAX, 28, 28], &[0; 9]), &[28, 28]).contains("announces 4294967295"));
        assert!(problem(&file(&[101], &[0; 101]), &[]).contains("more than 100 are not read"));
    }

    #[test]
    fn members_are_one_content() {
        let content = file(&[5], &[1, 2, 3, 4, 5]);
        for cut in 0..=content.len() {
            // An empty member adds nothing.
            let packed = [gz(&content[..cut]), gz(&[]), gz(&content[cut..])].concat();
            assert_eq!(parse_packed(&packed, &[], 9).unwrap(), [1, 2, 3, 4, 5], "{cut}");
            assert!(parse_packed(&packed[..packed.len() - 1], &[], 9).is_err());
            let more = parse_packed(&[packed, gz(&[6])].concat(), &[], 9);
            assert!(more.unwrap_err().1.contains("bytes follow the 5 items"), "{cut}");
        }
    }

    #[test]
    fn content_is_official_however_it_was_packed() {
        let root = tiny(1, &[4]);
        let folder = root.path().join("mnist");
        let Storage::Idx(official) = &mnist::ENTRY.storage else {
            unreachable!("MNIST is in IDX files")
        };
        let mut files = *official;
        for file in &mut files {
            let (plain, packed) = (folder.join(unpacked_name(file)), folder.join(file.packed.name));
            let content = fs::read(&plain).unwrap_or_else(|_| {
                let packed = fs::read(&packed).unwrap();
                let mut content = Vec::new();
                GzDecoder::new(&packed[..]).read_to_end(&mut content).unwrap();
                content
            });
            let _ = fs::remove_file(plain);
            file.unpacked = Some(Box::leak(md5_hex(&content).into_boxed_str()));
            fs::write(&packed, [gz(&content[..9]), gz(&content[9..])].concat()).unwrap();
        }
        let (_, verified) = read(&mnist::ENTRY, &files, root.path(), Verify::Yes).unwrap();
        assert!(verified);
        // Unpacked under the packed file's name.
        let last = folder.join(files[3].packed.name);
        fs::write(&last, file(&[1], &[9])).unwrap();
        assert!(read(&mnist::ENTRY, &files, root.path(), Verify::Yes).unwrap().1);
        fs::write(&last, [gz(&file(&[1], &[8])), gz(&[])].concat()).unwrap();
        let error = read(&mnist::ENTRY, &files, root.path(), Verify::Yes)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not proven to be the official file"), "{error}");
    }

    #[test]
    fn packed_files_are_whole() {
        let good = gz(&file(&[3], &[1, 2, 3]));
        assert_eq!(parse_packed(&good, &[], 9).unwrap(), [1, 2, 3]);
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(
            parse_packed(&trailing, &[], 9)
                .unwrap_err()
                .1
                .contains("1 bytes follow")
        );
        assert!(parse_packed(&good[..good.len() - 9], &[], 9).is_err());
        let mut checksum = good.clone();
        *checksum.last_mut().unwrap() ^= 1;
        assert!(parse_packed(&checksum, &[], 9).is_err());
        assert!(parse_packed(b"<html>", &[], 9).unwrap_err().1.contains("not a gzip"));
    }

    proptest! {
        #[test]
        fn nothing_panics(content: Vec<u8>, rank in 0usize..4) {
            let item = &[28, 28, 1][..rank];
            let _ = parse(&mut &content[..], item, 99);
            let _ = parse_packed(&content, item, 99);
            let _ = parse_packed(&gz(&content), item, 99);
        }

        #[test]
        fn only_what_the_header_announces_is_read(count: u32, elements in prop::collection::vec(any::<u8>(), 0..40)) {
            let read = parse(&mut &file(&[count], &elements)[..], &[], usize::MAX);
            prop_assert_eq!(read.is_ok(), count as usize == elements.len() && count > 0);
        }
    }
}
