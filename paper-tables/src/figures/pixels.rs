//! Images of 8 bits a channel: as `data:` addresses for pages, as hexadecimal for papers.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// An image: values channel by channel, row by row, in `[0, 1]`.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// `channels · height · width` values.
    pub values: &'a [f32],
    /// Channels, height, width. One channel is grey, three are red, green and blue.
    pub shape: [usize; 3],
}

impl Image<'_> {
    /// The image, its values rounded. Of other than three channels only the first is kept.
    pub fn pixels(&self) -> Pixels {
        let [channels, height, width] = self.shape;
        let area = height * width;
        assert_eq!(self.values.len(), channels * area, "an image of {:?}", self.shape);
        let planes = if channels == 3 { 3 } else { 1 };
        let mut bytes = Vec::with_capacity(planes * area);
        for place in 0..area {
            for plane in 0..planes {
                let value = self.values[plane * area + place];
                bytes.push((value.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        }
        Pixels {
            address: format!(
                "data:image/png;base64,{}",
                STANDARD.encode(png(&bytes, [width, height]))
            ),
            bytes,
            size: [width, height],
        }
    }

    /// The perturbation from `clean` to this image, amplified `times` times around grey.
    pub fn change_from(&self, clean: &[f32], times: f64) -> Pixels {
        let change: Vec<f32> = self
            .values
            .iter()
            .zip(clean)
            .map(|(after, before)| (0.5 + times * (f64::from(*after) - f64::from(*before))) as f32)
            .collect();
        let change = Image {
            values: &change,
            ..*self
        };
        change.pixels()
    }
}

/// An image, grey or of red, green and blue, with 8 bits a channel. It serialises as its address.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// Row by row, channels together.
    bytes: Vec<u8>,
    /// Width and height.
    size: [usize; 2],
    address: String,
}

impl Pixels {
    /// A PNG in a `data:` address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What pdfTeX writes into a PDF to show the image in a square of side 1: an inline image (ISO 32000, 8.9.7), whose
    /// pixels nothing smooths.
    pub(super) fn inline_image(&self) -> String {
        let [width, height] = self.size;
        let space = if self.bytes.len() == width * height {
            "/G"
        } else {
            "/RGB"
        };
        let mut text = format!("BI /W {width} /H {height} /CS {space} /BPC 8 /F /AHx ID ");
        for byte in &self.bytes {
            write!(text, "{byte:02x}").expect("writing to a string succeeds");
        }
        text + "> EI"
    }
}

impl Serialize for Pixels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.address)
    }
}

fn png(bytes: &[u8], [width, height]: [usize; 2]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(if bytes.len() == width * height {
        png::ColorType::Grayscale
    } else {
        png::ColorType::Rgb
    });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(bytes).and_then(|()| writer.finish()));
    written.expect("memory takes every byte of an image that has any");
    file
}

/// The amplification at which the largest change reaches from grey to black or white. 1 if nothing changes.
pub fn magnification(largest: f64) -> f64 {
    if largest > 0.0 { 0.5 / largest } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(pixels: &Pixels) -> (png::ColorType, Vec<u8>) {
        let text = pixels.address().strip_prefix("data:image/png;base64,").unwrap();
        let file = STANDARD.decode(text).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        (reader.info().color_type, bytes)
    }

    #[test]
    fn pixels_come_back_rounded_to_a_byte() {
        let grey = Image {
            values: &[0.0, 0.2, 0.999, 1.5, -1.0, 0.5],
            shape: [1, 2, 3],
        };
        assert_eq!(
            decoded(&grey.pixels()),
            (png::ColorType::Grayscale, vec![0, 51, 255, 255, 0, 128])
        );
        let red_green_blue = Image {
            values: &[1.0, 0.0, 0.2, 0.4, 0.6, 0.8],
            shape: [3, 1, 2],
        };
        assert_eq!(
            decoded(&red_green_blue.pixels()),
            (png::ColorType::Rgb, vec![255, 51, 153, 0, 102, 204])
        );
        assert_eq!(
            red_green_blue.pixels().inline_image(),
            "BI /W 2 /H 1 /CS /RGB /BPC 8 /F /AHx ID ff33990066cc> EI"
        );
    }

    #[test]
    fn the_largest_change_is_black_or_white_and_none_is_grey() {
        let clean = [0.5, 0.5, 0.5, 0.5];
        let attacked = Image {
            values: &[0.4, 0.6, 0.5, 0.55],
            shape: [1, 2, 2],
        };
        let times = magnification(0.1);
        assert_eq!(times, 5.0);
        assert_eq!(decoded(&attacked.change_from(&clean, times)).1, [0, 255, 128, 191]);
        assert_eq!(magnification(0.0), 1.0);
    }
}
