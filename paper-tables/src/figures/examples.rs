//! Images before and after an attack, on several networks.

use serde::Serialize;

use super::figure::{COLOURS, Figure};
use super::names::{file_name, number_duplicates};
use super::pixels::Pixels;
use super::scene::{self, Anchor, Scene, Stroke, Words};
use super::{svg, tikz};
use crate::records::Records;

/// The same images under one attack on several networks.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleImages {
    /// The name in files: letters, digits and hyphens.
    pub id: String,
    /// Which attack, on what.
    pub title: String,
    /// By how much the perturbation is amplified.
    pub times: String,
    /// The images before the attack.
    pub clean: Vec<CleanImage>,
    /// The attacked images, one line per defense.
    pub lines: Vec<AttackedImages>,
    /// What is left out, if anything.
    pub note: String,
}

/// An image before an attack.
#[derive(Debug, Clone, Serialize)]
pub struct CleanImage {
    /// The example.
    pub id: u64,
    /// Its class.
    pub label: String,
    /// The image.
    pub image: Pixels,
}

/// Attacked images on one network.
#[derive(Debug, Clone, Serialize)]
pub struct AttackedImages {
    /// The defense.
    pub name: String,
    /// Its accuracy under this attack, over all images.
    pub accuracy: String,
    /// One for each image.
    pub pairs: Vec<AttackedImage>,
}

/// The perturbation of an image and the prediction it leads to.
#[derive(Debug, Clone, Serialize)]
pub struct AttackedImage {
    /// The class predicted for the clean image.
    pub before: String,
    /// The class predicted for the attacked image.
    pub after: String,
    /// `wrong`: already misclassified before the attack; `fooled`: by the attack; `right`: survived it.
    pub outcome: &'static str,
    /// The perturbation, amplified around grey.
    pub change: Pixels,
    /// The attacked image.
    pub attacked: Pixels,
}

impl AttackedImage {
    /// The outcome for an image of class `label`.
    pub const fn outcome(label: u32, before: u32, after: u32) -> &'static str {
        match (before == label, after == label) {
            (_, true) => "right",
            (true, false) => "fooled",
            (false, false) => "wrong",
        }
    }
}

impl ExampleImages {
    /// A name in files for the images of this attack on this network.
    pub fn id_of(dataset: &str, network: &str, attack: &str) -> String {
        file_name(&["examples", dataset, network, attack])
    }

    /// Makes the names of figures unique by numbering duplicates.
    pub fn set_apart(images: &mut [Self]) {
        number_duplicates(images, |figure| &mut figure.id);
    }

    /// What the pictures show.
    fn legend(&self) -> [String; 2] {
        let left = format!(
            "left: the perturbation, amplified {} times; right: the adversarial image",
            self.times
        );
        [
            left,
            "below: the predicted class; framed: fooled by the attack; dotted: already wrong before".to_string(),
        ]
    }
}

/// The edge of an image that fools the network.
const FOOLED: Stroke = Stroke {
    colour: COLOURS[1],
    width: 3.0,
    dotted: false,
};
/// The edge of an image that the network got wrong before the attack.
const WRONG: Stroke = Stroke {
    colour: (110, 110, 110),
    width: 2.0,
    dotted: true,
};

/// The side of an image, in pixels.
const SIDE: f64 = 56.0;
/// From one pair of images to the next.
const PITCH: [f64; 2] = [2.0 * SIDE + 20.0, SIDE + 24.0];

impl ExampleImages {
    fn scene(&self) -> Scene<'_> {
        let legend = self.legend();
        let labels = self.lines.iter().flat_map(|line| [&line.name, &line.accuracy]);
        let left = labels.map(|label| scene::width(label, 13)).fold(80.0, f64::max) + 12.0;
        let top = 68.0;
        let [across, down] = [
            PITCH[0] * self.clean.len() as f64,
            PITCH[1] * (self.lines.len() + 1) as f64,
        ];
        let texts = scene::width(&self.title, 16).max(scene::width(&legend[1], 12)) + 8.0;
        let mut scene = Scene::new((left + across).max(texts), top + down);
        scene.words(Words::new([8.0, 16.0], 16, Anchor::Start, &self.title));
        for (place, line) in legend.iter().enumerate() {
            scene.words(Words::new([8.0, 36.0 + 16.0 * place as f64], 12, Anchor::Start, line));
        }
        scene.words(Words::new([left - 8.0, top + SIDE / 2.0], 13, Anchor::End, "clean"));
        let below =
            |x: f64, y: f64, class: &str| Words::new([x + SIDE / 2.0, y + SIDE + 9.0], 12, Anchor::Middle, class);
        for (column, clean) in self.clean.iter().enumerate() {
            let x = left + PITCH[0] * column as f64 + SIDE + 4.0;
            scene.image([x, top, SIDE, SIDE], &clean.image);
            scene.words(below(x, top, &clean.label));
        }
        for (row, line) in self.lines.iter().enumerate() {
            let y = top + PITCH[1] * (row + 1) as f64;
            let middle = y + SIDE / 2.0;
            scene.words(Words::new([left - 8.0, middle - 8.0], 13, Anchor::End, &line.name));
            scene.words(Words::new([left - 8.0, middle + 9.0], 12, Anchor::End, &line.accuracy).coloured(WRONG.colour));
            for (column, pair) in line.pairs.iter().enumerate() {
                let x = left + PITCH[0] * column as f64;
                scene.image([x, y, SIDE, SIDE], &pair.change);
                let x = x + SIDE + 4.0;
                scene.image([x, y, SIDE, SIDE], &pair.attacked);
                match pair.outcome {
                    "fooled" => scene.frame([x, y, SIDE, SIDE], FOOLED),
                    "wrong" => scene.frame([x, y, SIDE, SIDE], WRONG),
                    _ => {}
                }
                scene.words(below(x, y, &pair.after));
            }
        }
        scene
    }
}

impl Figure for ExampleImages {
    fn id(&self) -> &str {
        &self.id
    }

    fn csv(&self) -> String {
        let mut records = Records::new(["figure", "defense", "image", "class", "before", "after", "outcome"]);
        for line in &self.lines {
            for (clean, pair) in self.clean.iter().zip(&line.pairs) {
                let image = clean.id.to_string();
                records.add([
                    &self.id,
                    &line.name,
                    &image,
                    &clean.label,
                    &pair.before,
                    &pair.after,
                    pair.outcome,
                ]);
            }
        }
        records.finish()
    }

    fn svg(&self) -> String {
        svg::draw(&self.scene())
    }

    fn tex(&self) -> String {
        tikz::draw(&self.scene())
    }
}
