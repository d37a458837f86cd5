//! Digits: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998; CC BY 4.0.
//!
//! 1,797 grey images `[1, 8, 8]` with values `0..=16`, part of the program (`data/README.md`).
//!
//! Split, the same for every seed: in file order, the last images of each class are for testing, 500
//! in all with the proportions of the classes kept; the first 1,297 are for training. Neighbours in the
//! file tend to be by the same writer, so cutting it once keeps most writers on one side.

use std::io::Read;
use std::path::Path;

use flate2::bufread::GzDecoder;

use crate::dataset::check_labels;
use crate::entry::{Entry, Family, Storage};
use crate::split::apportion;
use crate::{DataError, Split};

pub(crate) const ENTRY: Entry = Entry {
    name: "digits",
    summary: "handwritten digits, 8 × 8 grey, 1,297 + 500; embedded, no download",
    source: "Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998, doi:10.24432/C50P49",
    licence: "CC BY 4.0",
    image: [1, 8, 8],
    classes: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    train: 1297,
    test: TEST,
    family: Family::Mnist,
    mirrors: &[],
    storage: Storage::Embedded(include_bytes!("../data/digits.csv.gz")),
};

const TEST: usize = 500;
const SCALE: u8 = 16;

/// Training and test split.
pub(crate) fn read(entry: &Entry, content: &[u8]) -> Result<[Split; 2], DataError> {
    let file = Path::new("digits.csv.gz");
    let mut text = String::new();
    GzDecoder::new(content)
        .read_to_string(&mut text)
        .map_err(|error| entry.damaged(file, "its compressed data", error.to_string()))?;
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let damaged = |problem: &str| entry.damaged(file, format!("line {}", index + 1), problem);
        let values: Result<Vec<u8>, _> = line.split(',').map(str::parse).collect();
        let values = values.map_err(|_| damaged("a value is not a number"))?;
        match values.split_last() {
            Some((&label, pixels)) if pixels.len() == 64 && pixels.iter().all(|&pixel| pixel <= SCALE) => {
                labels.push(u32::from(label));
                images.push(pixels.to_vec());
            }
            _ => return Err(damaged("it is not 64 values up to 16 and a label")),
        }
    }
    check_labels(&labels, entry.classes.len(), "`digits.csv.gz`")?;

    // From the end: the first `quota` images of each class met there are for testing.
    let mut quota = apportion(&counts(&labels, entry.classes.len()), TEST.min(labels.len()));
    let mut is_test = vec![false; labels.len()];
    for (index, &label) in labels.iter().enumerate().rev() {
        let left = &mut quota[label as usize];
        is_test[index] = *left > 0;
        *left = left.saturating_sub(1);
    }
    let part = |test: bool| {
        let indices = || (0..labels.len()).filter(|&index| is_test[index] == test);
        let pixels = indices().flat_map(|index| images[index].clone()).collect();
        Split::new(
            entry.image,
            SCALE,
            pixels,
            indices().map(|index| labels[index]).collect(),
        )
    };
    Ok([part(false)?, part(true)?])
}

fn counts(labels: &[u32], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for &label in labels {
        counts[label as usize] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idx::tests::gz;
    use crate::{Verify, load};

    #[test]
    fn the_split_is_fixed_and_keeps_proportions() {
        let data = load("digits", Path::new("/nowhere"), Verify::Yes).unwrap();
        assert!(data.verified);
        assert_eq!((data.train.len(), data.test.len()), (1297, 500));
        let test = counts(data.test.labels(), 10);
        let train = counts(data.train.labels(), 10);
        for (test, train) in test.iter().zip(&train) {
            let exact = (test + train) as f64 * 500.0 / 1797.0;
            assert!((*test as f64 - exact).abs() < 1.0);
        }
        // Changing this changes every result on digits.
        assert_eq!(
            data.digest,
            "e0f73505eddf8cff4b2324241f071bb6b15ae64e956de28c001f778807d0164c"
        );
    }

    #[test]
    fn the_first_image_is_a_zero() {
        let data = load("digits", Path::new("/nowhere"), Verify::Yes).unwrap();
        let picture: String = (data.train.pixels(0).enumerate())
            .map(|(index, pixel)| {
                let end = if index % 8 == 7 { "\n" } else { "" };
                format!("{}{end}", if pixel > 0.4 { '#' } else { '.' })
            })
            .collect();
        let zero = "...##...\n..####..\n..#..##.\n..#..##.\n..#..##.\n..#..##.\n..#.##..\n...##...\n";
        assert_eq!(data.train.labels()[0], 0);
        assert_eq!(picture, zero);
    }

    #[test]
    fn damage_is_named() {
        let error = |text: &str| read(&ENTRY, &gz(text.as_bytes())).unwrap_err().to_string();
        let row = vec!["16"; 64].join(",");
        assert!(error(&format!("{row},1\n{row},x\n")).contains("line 2: a value is not a number"));
        assert!(error(&format!("{row}\n")).contains("line 1: it is not 64 values"));
        assert!(error(&format!("17,{row}\n")).contains("line 1"));
        assert!(error(&format!("{row},10\n")).contains("image 0 has label 10"));
        assert!(read(&ENTRY, b"no gzip").is_err());
    }
}
