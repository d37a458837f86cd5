//! Images as the page holds them: small PNGs in `data:` addresses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// An image: values channel by channel, row by row, in `[0, 1]`.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// `channels · height · width` values.
    pub values: &'a [f32],
    /// Channels, height, width. One channel is grey, three are red, green and blue.
    pub shape: [usize; 3],
}

impl Image<'_> {
    /// The image as a `data:` address: 8 bits a channel, rounded. Of other than three channels only the first is shown.
    pub fn address(&self) -> String {
        let [channels, height, width] = self.shape;
        let area = height * width;
        assert_eq!(self.values.len(), channels * area, "an image of {:?}", self.shape);
        let (colour, planes) = match channels {
            3 => (png::ColorType::Rgb, 3),
            _ => (png::ColorType::Grayscale, 1),
        };
        let mut bytes = Vec::with_capacity(planes * area);
        for place in 0..area {
            for plane in 0..planes {
                let value = self.values[plane * area + place];
                bytes.push((value.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        }
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
        encoder.set_color(colour);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let written = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&bytes).and_then(|()| writer.finish()));
        written.expect("memory takes every byte of an image that has any");
        format!("data:image/png;base64,{}", STANDARD.encode(file))
    }

    /// The change from `clean` to this image, `times` as large, around grey.
    pub fn change_from(&self, clean: &[f32], times: f64) -> String {
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
        change.address()
    }
}

/// How much larger the largest change must be to reach from grey to black or white. 1 if nothing changes.
pub fn magnification(largest: f64) -> f64 {
    if largest > 0.0 { 0.5 / largest } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(address: &str) -> (png::ColorType, Vec<u8>) {
        let text = address.strip_prefix("data:image/png;base64,").unwrap();
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
            decoded(&grey.address()),
            (png::ColorType::Grayscale, vec![0, 51, 255, 255, 0, 128])
        );
        let red_green_blue = Image {
            values: &[1.0, 0.0, 0.2, 0.4, 0.6, 0.8],
            shape: [3, 1, 2],
        };
        assert_eq!(
            decoded(&red_green_blue.address()),
            (png::ColorType::Rgb, vec![255, 51, 153, 0, 102, 204])
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
