//! Unlabeled images of one's own beside a data set.
//!
//! A safetensors file with one tensor, `images`: bytes `[N, C, H, W]`, of the shape and the scale of the data set's
//! images (on CIFAR 0 … 255).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use datasets::{Dataset, Split};
use safetensors::{Dtype, SafeTensors};

const IMAGES: &str = "images";
/// In place of a label: no class, so that nobody can train on it by mistake.
const NO_LABEL: u32 = u32::MAX;

/// Appends the images of a file to the training split, without labels. The digest then names these images too.
pub(super) fn append(dataset: &mut Dataset, file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| {
        let shown = file.display();
        format!("cannot read the unlabeled images in {shown}; `extra` in `dataset` names a file in the data folder")
    })?;
    let within = || format!("{} is no file of unlabeled images", file.display());
    let images = images(&bytes, dataset).with_context(within)?;
    let train = &dataset.train;
    let count = images.len() / dataset.image.iter().product::<usize>();
    let labels = [train.labels(), &vec![NO_LABEL; count]].concat();
    let pixels = [train.bytes(), images].concat();
    let split = Split::new(train.image(), train.scale(), pixels, labels).with_context(within)?;
    dataset.digest = format!("{}+{}", dataset.digest, blake3::hash(images).to_hex());
    dataset.train = split;
    Ok(())
}

/// The bytes of the images, if they are such as the data set's.
fn images<'a>(bytes: &'a [u8], dataset: &Dataset) -> Result<&'a [u8]> {
    let images = SafeTensors::deserialize(bytes)?.tensor(IMAGES)?;
    let [channels, height, width] = dataset.image;
    ensure!(
        images.dtype() == Dtype::U8,
        "`{IMAGES}` is {:?}; bytes (U8) are expected",
        images.dtype()
    );
    ensure!(
        matches!(images.shape(), [count, rest @ ..] if *count > 0 && rest == dataset.image),
        "`{IMAGES}` is {:?}; [N, {channels}, {height}, {width}] is expected",
        images.shape()
    );
    Ok(images.data())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn write(file: &Path, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        std::fs::write(file, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
    }

    #[test]
    fn images_are_appended_and_named_by_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("more.safetensors");
        let digits = || datasets::load("digits", folder.path(), datasets::Verify::Yes).unwrap();
        let (official, mut more) = (digits(), digits());
        let bytes: Vec<u8> = (0..2 * 64).map(|byte| byte % 17).collect();
        write(&file, "images", Dtype::U8, &[2, 1, 8, 8], &bytes);
        append(&mut more, &file).unwrap();
        assert_eq!(more.train.len(), official.train.len() + 2);
        assert_eq!(more.train.bytes()[official.train.bytes().len()..], bytes);
        assert_eq!(more.train.labels()[..official.train.len()], *official.train.labels());
        assert!(more.digest.starts_with(&official.digest) && more.digest != official.digest);
        assert_eq!(more.test, official.test);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("more.safetensors");
        let refused = |part: &str| {
            let mut digits = datasets::load("digits", folder.path(), datasets::Verify::Yes).unwrap();
            let error = format!("{:#}", append(&mut digits, &file).unwrap_err());
            assert!(error.contains(part) && error.contains("more.safetensors"), "{error}");
        };
        refused("cannot read");
        std::fs::write(&file, b"not a tensor").unwrap();
        refused("no file of unlabeled images");
        write(&file, "pictures", Dtype::U8, &[1, 1, 8, 8], &[0; 64]);
        refused("images");
        write(&file, "images", Dtype::F32, &[1, 1, 4, 4], &[0; 64]);
        refused("bytes (U8)");
        write(&file, "images", Dtype::U8, &[1, 64], &[0; 64]);
        refused("[N, 1, 8, 8]");
        write(&file, "images", Dtype::U8, &[1, 1, 8, 8], &[255; 64]);
        refused("above the scale 16");
    }
}
