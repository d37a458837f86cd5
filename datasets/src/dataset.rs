//! Images with their labels, in memory.

use sha2::{Digest, Sha256};

use crate::DataError;
use crate::checksum::hex;

/// Images with a class each. Invariant: `pixels` is `[len, C, H, W]` for `labels` of length `len`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    image: [usize; 3],
    scale: u8,
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl Split {
    /// A split out of `pixels` `[len, C, H, W]`, values `0..=scale`, and `labels` `[len]`.
    ///
    /// # Errors
    /// [`DataError::Shape`] if the sizes do not fit or a pixel exceeds the scale.
    pub fn new(image: [usize; 3], scale: u8, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self, DataError> {
        let shape = |problem| DataError::Shape {
            place: "split".into(),
            problem,
        };
        let [channels, height, width] = image;
        if image.contains(&0) || scale == 0 {
            return Err(shape(format!(
                "images of {channels} × {height} × {width} with scale {scale} are empty"
            )));
        }
        if labels.len().checked_mul(channels * height * width) != Some(pixels.len()) {
            return Err(shape(format!(
                "{} labels do not fit {} bytes of {channels} × {height} × {width} images",
                labels.len(),
                pixels.len()
            )));
        }
        if let Some(index) = pixels.iter().position(|&pixel| pixel > scale) {
            return Err(shape(format!(
                "byte {index} is {}, above the scale {scale}",
                pixels[index]
            )));
        }
        Ok(Self {
            image,
            scale,
            pixels,
            labels,
        })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[C, H, W]`.
    pub fn image(&self) -> [usize; 3] {
        self.image
    }

    /// The byte that stands for a pixel value of 1.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// The class of each image: `[len]`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The bytes of all images: `[len, C, H, W]`, values `0..=scale`.
    pub fn bytes(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels of an image, byte / scale, in `[0, 1]`: `C·H·W` of them, channel by channel, each
    /// row by row from the top left. Panics if there is no such image.
    pub fn pixels(&self, index: usize) -> impl ExactSizeIterator<Item = f32> + '_ {
        let len = self.image.iter().product::<usize>();
        let scale = f32::from(self.scale);
        self.pixels[index * len..(index + 1) * len]
            .iter()
            .map(move |&byte| f32::from(byte) / scale)
    }

    /// Replaces `out` by the pixels of these images: `[indices, C, H, W]` in `[0, 1]`. Panics if there
    /// is no such image.
    pub fn fill(&self, indices: &[usize], out: &mut Vec<f32>) {
        out.clear();
        out.reserve(indices.len() * self.image.iter().product::<usize>());
        for &index in indices {
            out.extend(self.pixels(index));
        }
    }

    /// The classes of these images: `[indices]`. Panics if there is no such image.
    pub fn labels_at(&self, indices: &[usize]) -> Vec<u32> {
        indices.iter().map(|&index| self.labels[index]).collect()
    }
}

/// A data set in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dataset {
    /// Its name in a matrix, such as `cifar10`.
    pub name: String,
    /// `[C, H, W]` of every image.
    pub image: [usize; 3],
    /// The name of each class.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Split,
    /// Images to test on.
    pub test: Split,
    /// SHA-256 over shapes, labels and pixels of both splits, in lower-case hex. It names the content,
    /// not the files that it was read from.
    pub digest: String,
    /// Whether the files are proven to be the official ones.
    pub verified: bool,
}

impl Dataset {
    /// A data set out of two splits. One made by hand counts as unverified.
    ///
    /// # Errors
    /// [`DataError::Label`] if a label has no class; [`DataError::Shape`] if the splits differ in shape
    /// or scale.
    pub fn new(name: impl Into<String>, classes: Vec<String>, train: Split, test: Split) -> Result<Self, DataError> {
        let name = name.into();
        if (train.image, train.scale) != (test.image, test.scale) {
            return Err(DataError::Shape {
                place: name,
                problem: format!(
                    "training images are {:?} with scale {}, test images {:?} with scale {}",
                    train.image, train.scale, test.image, test.scale
                ),
            });
        }
        for (split, part) in [(&train, "train"), (&test, "test")] {
            check_labels(&split.labels, classes.len(), &format!("{name} {part}"))?;
        }
        let digest = digest(classes.len(), &train, &test);
        Ok(Self {
            name,
            image: train.image,
            classes,
            train,
            test,
            digest,
            verified: false,
        })
    }
}

/// Fails on the first label outside `0..classes`.
pub(crate) fn check_labels(labels: &[u32], classes: usize, place: &str) -> Result<(), DataError> {
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(index) => Err(DataError::Label {
            place: place.to_string(),
            index,
            label: labels[index],
            classes,
        }),
    }
}

/// Part of the key of every result: never change what is hashed, or its order.
fn digest(classes: usize, train: &Split, test: &Split) -> String {
    let mut hash = Sha256::new();
    hash.update(b"rampart data set 1\n");
    let [channels, height, width] = train.image;
    for number in [channels, height, width, usize::from(train.scale), classes] {
        hash.update((number as u64).to_le_bytes());
    }
    for split in [train, test] {
        hash.update((split.len() as u64).to_le_bytes());
        let labels: Vec<u8> = split.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        hash.update(labels);
        hash.update(&split.pixels);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Split {
        Split::new([1, 1, 2], 16, vec![0, 16, 4, 1], vec![1, 0]).unwrap()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| class.to_string()).collect()
    }

    #[test]
    fn a_pixel_is_byte_over_scale() {
        let mut out = vec![9.0];
        two().fill(&[1, 0, 1], &mut out);
        assert_eq!(out, [0.25, 0.0625, 0.0, 1.0, 0.25, 0.0625]);
        assert_eq!(two().labels_at(&[1, 1, 0]), [0, 0, 1]);
        assert_eq!(two().pixels(1).collect::<Vec<_>>(), [0.25, 0.0625]);
    }

    #[test]
    fn splits_that_do_not_fit_are_refused() {
        let error = |image, scale, pixels, labels| Split::new(image, scale, pixels, labels).unwrap_err().to_string();
        assert!(error([1, 1, 2], 255, vec![0; 3], vec![0]).contains("1 labels do not fit 3 bytes"));
        assert!(error([1, 1, 2], 16, vec![0, 17], vec![0]).contains("byte 1 is 17, above the scale 16"));
        assert!(error([0, 1, 2], 255, vec![], vec![0]).contains("empty"));
        let other = Split::new([1, 2, 1], 16, vec![0; 2], vec![0]).unwrap();
        assert!(Dataset::new("toy", names(2), two(), other).is_err());
    }

    #[test]
    fn a_label_without_a_class_is_named() {
        let error = Dataset::new("toy", names(1), two(), two()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "toy train: image 0 has label 1, but there are only classes 0 to 0"
        );
    }

    #[test]
    fn the_digest_sees_content_alone() {
        let toy = Dataset::new("toy", names(2), two(), two()).unwrap();
        assert_eq!(
            toy.digest,
            Dataset::new("other", names(2), two(), two()).unwrap().digest
        );
        assert_ne!(toy.digest, Dataset::new("toy", names(3), two(), two()).unwrap().digest);
        let swapped = Split::new([1, 1, 2], 16, vec![0, 16, 4, 1], vec![0, 1]).unwrap();
        assert_ne!(
            toy.digest,
            Dataset::new("toy", names(2), two(), swapped).unwrap().digest
        );
    }
}
