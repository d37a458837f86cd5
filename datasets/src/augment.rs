//! Random crops and flips.
//!
//! An image `[C, H, W]` is padded on each side, a window `[C, H, W]` of it is kept, and the window is
//! flipped left to right with probability ½. What an image gets is a pure function of the stream and
//! its id. Source: the usual CIFAR recipe, `RandomCrop(32, padding=4)` and `RandomHorizontalFlip` of
//! torchvision.

use std::fmt;
use std::str::FromStr;

use random::Stream;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::DataError;

/// The pixels around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Black.
    Zero,
    /// The image mirrored without repeating its edge.
    Reflect,
}

/// A random window of the padded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Pixels added on each side.
    pub pad: usize,
    /// What they are.
    pub padding: Padding,
}

/// What happens to every training image. In YAML a list of `crop-4` (or any other number of pixels),
/// `crop-4-reflect` and `flip`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Augment {
    /// Crop first.
    pub crop: Option<Crop>,
    /// Then flip half of the images left to right.
    pub flip: bool,
}

/// What one image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Upper edge of the window in the padded image, `0..=2·pad`.
    pub top: usize,
    /// Left edge of the window in the padded image, `0..=2·pad`.
    pub left: usize,
    /// Whether the window is flipped.
    pub flip: bool,
}

impl Augment {
    /// Whether nothing happens.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it can be done to images of this shape.
    ///
    /// # Errors
    /// [`DataError::Augment`] if there is too little image to reflect.
    pub fn check(&self, [_, height, width]: [usize; 3]) -> Result<(), DataError> {
        match self.crop {
            Some(Crop {
                pad,
                padding: Padding::Reflect,
            }) if pad >= height.min(width) => Err(DataError::Augment(format!(
                "crop-{pad}-reflect needs images larger than {pad} pixels, not {height} × {width}; crop fewer pixels"
            ))),
            _ => Ok(()),
        }
    }

    /// What the image with this id gets. The stream is the caller's for
    /// [`random::Purpose::Augmentation`] at this epoch.
    pub fn draw(&self, stream: &Stream, id: u64) -> Draw {
        // One integer holds all three, so that one draw settles an image without bias.
        let places = 2 * self.crop.map_or(0, |crop| crop.pad as u64) + 1;
        let code = stream.below(id, 2 * places * places);
        Draw {
            top: (code / 2 / places) as usize,
            left: (code / 2 % places) as usize,
            flip: self.flip && code % 2 == 1,
        }
    }

    /// Writes the image `[C, H, W]` with this draw done to it into `out`. Panics if the slices do not
    /// fit the shape, or the shape fails [`Augment::check`].
    pub fn apply(&self, image: &[f32], shape: [usize; 3], draw: Draw, out: &mut [f32]) {
        match self.crop {
            Some(Crop { pad, padding }) => crop(image, shape, pad, (draw.top, draw.left), padding, out),
            None => out.copy_from_slice(image),
        }
        if draw.flip {
            flip(out, shape[2]);
        }
    }

    /// Writes the images `[ids, C, H, W]`, each with its own draw, into `out` of the same shape. Panics
    /// as [`Augment::apply`] does.
    pub fn apply_all(&self, stream: &Stream, ids: &[u64], shape: [usize; 3], images: &[f32], out: &mut [f32]) {
        let len = shape.iter().product::<usize>();
        assert_eq!(images.len(), ids.len() * len, "images do not fit their ids");
        assert_eq!(out.len(), images.len(), "the result does not fit the images");
        for ((&id, image), out) in ids.iter().zip(images.chunks_exact(len)).zip(out.chunks_exact_mut(len)) {
            self.apply(image, shape, self.draw(stream, id), out);
        }
    }
}

/// The window of the size of `image` `[C, H, W]` at `(top, left)` of that image padded by `pad` on each
/// side. `T::default()` is the pixel 0. Panics unless `top` and `left` are in `0..=2·pad`, the slices fit
/// the shape, and, to reflect, `pad` is less than H and W.
pub fn crop<T: Copy + Default>(
    image: &[T],
    [channels, height, width]: [usize; 3],
    pad: usize,
    (top, left): (usize, usize),
    padding: Padding,
    out: &mut [T],
) {
    assert_eq!(
        image.len(),
        channels * height * width,
        "the image does not fit its shape"
    );
    assert_eq!(out.len(), image.len(), "the window does not fit the image");
    assert!(
        top <= 2 * pad && left <= 2 * pad,
        "window ({top}, {left}) outside the padding of {pad}"
    );
    assert!(
        padding == Padding::Zero || pad < height.min(width),
        "cannot reflect {pad} pixels of {height} × {width}"
    );
    // Columns of the window that are inside the image, and where the image's first of them is.
    let start = pad.saturating_sub(left).min(width);
    let end = (width + pad).saturating_sub(left).min(width).max(start);
    let from = (left + start).saturating_sub(pad).min(width);
    for (plane, out) in image
        .chunks_exact(height * width)
        .zip(out.chunks_exact_mut(height * width))
    {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let Some(source) = source(row + top, pad, height, padding) else {
                out.fill(T::default());
                continue;
            };
            let line = &plane[source * width..][..width];
            out[start..end].copy_from_slice(&line[from..][..end - start]);
            for column in (0..start).chain(end..width) {
                out[column] = self::source(column + left, pad, width, padding).map_or(T::default(), |at| line[at]);
            }
        }
    }
}

/// Mirrors each row of `width` pixels.
pub fn flip<T>(image: &mut [T], width: usize) {
    for row in image.chunks_exact_mut(width) {
        row.reverse();
    }
}

/// The position in the image that a position in the padded image shows; none if it is black.
fn source(padded: usize, pad: usize, len: usize, padding: Padding) -> Option<usize> {
    match (padded.checked_sub(pad), padding) {
        (Some(inside), _) if inside < len => Some(inside),
        (_, Padding::Zero) => None,
        (Some(after), Padding::Reflect) => Some(2 * (len - 1) - after),
        (None, Padding::Reflect) => Some(pad - padded),
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reflect = match self.padding {
            Padding::Zero => "",
            Padding::Reflect => "-reflect",
        };
        write!(f, "crop-{}{reflect}", self.pad)
    }
}

impl FromStr for Crop {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let unknown = || {
            DataError::Augment(format!(
                "`{text}` is unknown; there are crop-4, crop-4-reflect and flip"
            ))
        };
        let rest = text.strip_prefix("crop-").ok_or_else(unknown)?;
        let (digits, padding) = match rest.strip_suffix("-reflect") {
            Some(digits) => (digits, Padding::Reflect),
            None => (rest, Padding::Zero),
        };
        let pad: u16 = digits.parse().map_err(|_| unknown())?;
        if pad == 0 {
            return Err(DataError::Augment(format!("`{text}` crops nothing; leave it out")));
        }
        Ok(Self {
            pad: pad.into(),
            padding,
        })
    }
}

impl TryFrom<Vec<String>> for Augment {
    type Error = DataError;

    fn try_from(list: Vec<String>) -> Result<Self, DataError> {
        let mut augment = Self::default();
        for text in list {
            let twice = if text == "flip" {
                std::mem::replace(&mut augment.flip, true)
            } else {
                augment.crop.replace(text.parse()?).is_some()
            };
            if twice {
                return Err(DataError::Augment(format!(
                    "`{text}` is one too many; name one crop and one flip at most"
                )));
            }
        }
        Ok(augment)
    }
}

impl From<Augment> for Vec<String> {
    fn from(augment: Augment) -> Self {
        let flip = augment.flip.then(|| "flip".to_string());
        augment
            .crop
            .map(|crop| crop.to_string())
            .into_iter()
            .chain(flip)
            .collect()
    }
}

impl JsonSchema for Augment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Augment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "description": "What happens to every training image: crop-4 (or another number of pixels), \
                            crop-4-reflect, flip",
            "items": { "type": "string", "pattern": "^(crop-[1-9][0-9]*(-reflect)?|flip)$" },
            "maxItems": 2,
            "uniqueItems": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use random::Purpose;

    fn stream(seed: u64) -> Stream {
        Stream::new(seed).of(Purpose::Augmentation)
    }

    fn cropped(pad: usize, place: (usize, usize), padding: Padding) -> Vec<u8> {
        let mut out = vec![99; 9];
        crop(&[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 3, 3], pad, place, padding, &mut out);
        out
    }

    #[test]
    fn windows_worked_by_hand() {
        assert_eq!(cropped(1, (1, 1), Padding::Zero), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(cropped(1, (0, 0), Padding::Zero), [0, 0, 0, 0, 1, 2, 0, 4, 5]);
        assert_eq!(cropped(1, (2, 1), Padding::Zero), [4, 5, 6, 7, 8, 9, 0, 0, 0]);
        assert_eq!(cropped(1, (0, 0), Padding::Reflect), [5, 4, 5, 2, 1, 2, 5, 4, 5]);
        assert_eq!(cropped(2, (4, 3), Padding::Reflect), [8, 9, 8, 5, 6, 5, 2, 3, 2]);
        // The whole window may be in the padding.
        assert_eq!(cropped(5, (5, 10), Padding::Zero), [0; 9]);
        assert_eq!(cropped(5, (5, 0), Padding::Zero), [0; 9]);
    }

    #[test]
    fn a_flip_mirrors_rows() {
        let mut image = [1, 2, 3, 4, 5, 6, 7, 8];
        flip(&mut image, 2);
        assert_eq!(image, [2, 1, 4, 3, 6, 5, 8, 7]);
    }

    #[test]
    fn draws_are_uniform() {
        let augment = Augment::try_from(vec!["crop-1".into(), "flip".into()]).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for id in 0..18_000 {
            let Draw { top, left, flip } = augment.draw(&stream(3), id);
            *counts.entry((top, left, flip)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 18);
        // Binomial(18000, 1/18): standard deviation 31.
        assert!(counts.values().all(|count| (1000i32 - count).abs() < 155), "{counts:?}");
    }

    #[test]
    fn yaml_names_round_trip() {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        for names in [
            &[][..],
            &["flip"],
            &["crop-4"],
            &["crop-12-reflect"],
            &["crop-4", "flip"],
        ] {
            let augment = Augment::try_from(list(names)).unwrap();
            assert_eq!(Vec::from(augment.clone()), names);
            assert_eq!(augment.is_none(), names.is_empty());
            let json = serde_json::to_string(&augment).unwrap();
            assert_eq!(serde_json::from_str::<Augment>(&json).unwrap(), augment);
        }
        let error = |names: &[&str]| Augment::try_from(list(names)).unwrap_err().to_string();
        assert!(error(&["crop-x"]).contains("`crop-x` is unknown"));
        assert!(error(&["rotate"]).contains("there are crop-4"));
        assert!(error(&["crop-0"]).contains("crops nothing"));
        assert!(error(&["flip", "flip"]).contains("one too many"));
        assert!(error(&["crop-4", "crop-2"]).contains("one too many"));
    }

    #[test]
    fn too_much_to_reflect_is_refused() {
        let augment = Augment::try_from(vec!["crop-8-reflect".into()]).unwrap();
        let error = augment.check([1, 8, 8]).unwrap_err().to_string();
        assert!(error.contains("crop fewer pixels"), "{error}");
        assert!(augment.check([1, 9, 9]).is_ok());
    }

    #[test]
    fn reference_augment() {
        reference::run("augment", &[], |case| {
            if case.kind() != "augment" {
                return Err(case.unknown_kind());
            }
            let [height, pad] = ["hw", "pad"].map(|name| case.hyper(name) as usize);
            let shape = [case.hyper("C") as usize, height, height];
            let len = shape.iter().product::<usize>();
            let numbers = |name: &str| case.raw(name).flatten_all().unwrap().to_vec1::<i64>().unwrap();
            let floats = |name: &str| case.raw(name).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (tops, lefts, flips) = (numbers("top"), numbers("left"), numbers("flip"));
            let bytes: Vec<u8> = numbers("image_u8_as_int64").iter().map(|&byte| byte as u8).collect();
            let split = crate::Split::new(shape, 255, bytes, vec![0; tops.len()]).unwrap();
            let mut images = Vec::new();
            split.fill(&(0..tops.len()).collect::<Vec<_>>(), &mut images);
            assert_eq!(images, floats("x"));
            for (padding, name) in [(Padding::Zero, "out_zero"), (Padding::Reflect, "out_reflect")] {
                let augment = Augment {
                    crop: Some(Crop { pad, padding }),
                    flip: true,
                };
                let mut out = vec![0.0; images.len()];
                for (index, (image, out)) in images.chunks(len).zip(out.chunks_mut(len)).enumerate() {
                    let draw = Draw {
                        top: tops[index] as usize,
                        left: lefts[index] as usize,
                        flip: flips[index] == 1,
                    };
                    augment.apply(image, shape, draw, out);
                }
                assert_eq!(out, floats(name), "{name}");
            }
            Ok(())
        });
    }

    proptest! {
        #[test]
        fn windows_show_the_padded_image(
            height in 1usize..7, width in 1usize..7, pad in 0usize..9, place in (0usize..17, 0usize..17), reflect: bool,
        ) {
            let padding = if reflect { Padding::Reflect } else { Padding::Zero };
            let pad = if reflect { pad.min(height.min(width) - 1) } else { pad };
            let (top, left) = (place.0.min(2 * pad), place.1.min(2 * pad));
            let image: Vec<usize> = (1..=2 * height * width).collect();
            let mut out = vec![usize::MAX; image.len()];
            crop(&image, [2, height, width], pad, (top, left), padding, &mut out);
            // The same by index arithmetic alone.
            let fold = |at: usize, len: usize| {
                let at = at as i64 - pad as i64;
                let last = len as i64 - 1;
                let folded = if at < 0 { -at } else if at > last { 2 * last - at } else { at };
                (padding == Padding::Reflect || folded == at).then_some(folded as usize)
            };
            for (index, &pixel) in out.iter().enumerate() {
                let (plane, row, column) = (index / (height * width), index / width % height, index % width);
                let expected = match (fold(row + top, height), fold(column + left, width)) {
                    (Some(row), Some(column)) => image[(plane * height + row) * width + column],
                    _ => 0,
                };
                prop_assert_eq!(pixel, expected);
            }
        }

        #[test]
        fn an_image_depends_on_its_id_alone(seed: u64, ids in prop::collection::vec(any::<u64>(), 1..5), pad in 1u8..4) {
            let augment = Augment::try_from(vec![format!("crop-{pad}"), "flip".into()]).unwrap();
            let images: Vec<f32> = (0..ids.len() * 12).map(|pixel| pixel as f32).collect();
            let mut all = vec![0.0; images.len()];
            augment.apply_all(&stream(seed), &ids, [1, 3, 4], &images, &mut all);
            for (row, &id) in ids.iter().enumerate() {
                let mut one = vec![0.0; 12];
                augment.apply_all(&stream(seed), &[id], [1, 3, 4], &images[row * 12..][..12], &mut one);
                prop_assert_eq!(&all[row * 12..][..12], &one[..]);
                let draw = augment.draw(&stream(seed), id);
                prop_assert!(draw.top <= 2 * usize::from(pad) && draw.left <= 2 * usize::from(pad));
            }
        }
    }
}
