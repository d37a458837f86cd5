//! Images before and after an attack, on several networks.

use std::fmt::Write as _;

use serde::Serialize;

use super::figure::{COLOURS, Figure, document, tikz};
use super::names::{file_name, number_duplicates};
use super::pixels::Pixels;
use super::svg;
use super::svg::{Anchor, Svg, colour};
use crate::csv::quote;
use crate::latex::escape;

/// The same images under one attack on several networks.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleImages {
    /// The name in files: letters, digits and hyphens.
    pub id: String,
    /// Which attack, on what.
    pub title: String,
    /// How much larger than it is the change is shown.
    pub times: String,
    /// The images before the attack.
    pub clean: Vec<CleanImage>,
    /// What became of them, a line for each defense.
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

/// What became of images on one network.
#[derive(Debug, Clone, Serialize)]
pub struct AttackedImages {
    /// The defense.
    pub name: String,
    /// Its accuracy under this attack, over all images.
    pub accuracy: String,
    /// One for each image.
    pub pairs: Vec<AttackedImage>,
}

/// The change of an image and what it leads to.
#[derive(Debug, Clone, Serialize)]
pub struct AttackedImage {
    /// The class that the network gives the clean image.
    pub before: String,
    /// The class that it gives the attacked one.
    pub after: String,
    /// `wrong`: before the attack; `fooled`: by the attack; `right`: not even then wrong.
    pub outcome: &'static str,
    /// The change, magnified around grey.
    pub change: Pixels,
    /// The attacked image.
    pub attacked: Pixels,
}

impl AttackedImage {
    /// What became of an image of class `label`.
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

    /// Numbers galleries whose names are the same.
    pub fn set_apart(galleries: &mut [Self]) {
        number_duplicates(galleries, |it| &mut it.id);
    }

    /// What the pictures show.
    fn legend(&self) -> [String; 2] {
        let left = format!(
            "left the change, {} times as large; right the attacked image",
            self.times
        );
        [
            left,
            "beneath it the class that the network sees; framed: fooled by the attack; dotted: wrong before"
                .to_string(),
        ]
    }
}

/// The colour of the frame of an image that fools.
const FOOLED: (u8, u8, u8) = COLOURS[1];
const WRONG: (u8, u8, u8) = (110, 110, 110);

impl Figure for ExampleImages {
    fn id(&self) -> &str {
        &self.id
    }

    fn csv(&self) -> String {
        let mut text = "figure,defense,image,class,before,after,outcome\n".to_string();
        for line in &self.lines {
            for (clean, pair) in self.clean.iter().zip(&line.pairs) {
                let [figure, defense, class, before, after] =
                    [&self.id, &line.name, &clean.label, &pair.before, &pair.after].map(|it| quote(it));
                writeln!(
                    text,
                    "{figure},{defense},{},{class},{before},{after},{}",
                    clean.id, pair.outcome
                )
                .expect("writing to a string succeeds");
            }
        }
        text
    }

    fn svg(&self) -> String {
        const SIDE: f64 = 56.0;
        const PITCH: [f64; 2] = [2.0 * SIDE + 20.0, SIDE + 24.0];
        let legend = self.legend();
        let labels = self.lines.iter().flat_map(|it| [&it.name, &it.accuracy]);
        let left = labels.map(|it| svg::width(it, 13)).fold(80.0, f64::max) + 12.0;
        let top = 68.0;
        let [across, down] = [
            PITCH[0] * self.clean.len() as f64,
            PITCH[1] * (self.lines.len() + 1) as f64,
        ];
        let words = svg::width(&self.title, 16).max(svg::width(&legend[1], 12)) + 8.0;
        let mut picture = Svg::new((left + across).max(words), top + down);
        picture.words([8.0, 16.0], 16, Anchor::Start, &self.title, "");
        for (place, line) in legend.iter().enumerate() {
            picture.words([8.0, 36.0 + 16.0 * place as f64], 12, Anchor::Start, line, "");
        }
        picture.words([left - 8.0, top + SIDE / 2.0], 13, Anchor::End, "clean", "");
        for (column, clean) in self.clean.iter().enumerate() {
            let x = left + PITCH[0] * column as f64 + SIDE + 4.0;
            picture.image([x, top, SIDE, SIDE], clean.image.address());
            picture.words([x + SIDE / 2.0, top + SIDE + 9.0], 12, Anchor::Middle, &clean.label, "");
        }
        for (row, line) in self.lines.iter().enumerate() {
            let y = top + PITCH[1] * (row + 1) as f64;
            picture.words([left - 8.0, y + SIDE / 2.0 - 8.0], 13, Anchor::End, &line.name, "");
            let more = format!("fill=\"{}\"", colour(WRONG));
            picture.words(
                [left - 8.0, y + SIDE / 2.0 + 9.0],
                12,
                Anchor::End,
                &line.accuracy,
                &more,
            );
            for (column, pair) in line.pairs.iter().enumerate() {
                let x = left + PITCH[0] * column as f64;
                picture.image([x, y, SIDE, SIDE], pair.change.address());
                let x = x + SIDE + 4.0;
                picture.image([x, y, SIDE, SIDE], pair.attacked.address());
                let frame = match pair.outcome {
                    "fooled" => format!("stroke=\"{}\" stroke-width=\"3\"", colour(FOOLED)),
                    "wrong" => format!(
                        "stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"2 3\"",
                        colour(WRONG)
                    ),
                    _ => String::new(),
                };
                if !frame.is_empty() {
                    picture.rect([x, y, SIDE, SIDE], "none", &frame);
                }
                picture.words([x + SIDE / 2.0, y + SIDE + 9.0], 12, Anchor::Middle, &pair.after, "");
            }
        }
        picture.finish()
    }

    /// Pixels stand in the document itself, as images that pdfTeX hands on to the PDF.
    fn tex(&self) -> String {
        const SIDE: f64 = 1.3;
        const PITCH: [f64; 2] = [2.0 * SIDE + 0.5, SIDE + 0.55];
        const POINTS: f64 = SIDE / 2.54 * 72.0;
        let mut text = format!(
            "\\begin{{tikzpicture}}[font=\\small]\n\\def\\pixels#1{{\\hbox to {SIDE}cm{{\\vbox to {SIDE}cm{{\\vss\\hbox{{\
             \\pdfliteral{{q {POINTS:.3} 0 0 {POINTS:.3} 0 0 cm #1 Q}}}}}}\\hss}}}}\n"
        );
        let node = |at: (f64, f64), more: &str, words: &str| {
            format!("\\node[{more}] at ({:.2},{:.2}) {{{words}}};\n", at.0, at.1)
        };
        let image = |at: (f64, f64), pixels: &Pixels| {
            let words = format!("\\pixels{{{}}}", pixels.inline_image());
            node(at, "anchor=south west, inner sep=0pt", &words)
        };
        let below = |(x, y): (f64, f64), words: &str| {
            node(
                (x + SIDE / 2.0, y - 0.18),
                "font=\\scriptsize, inner sep=0pt",
                &escape(words),
            )
        };
        text += &node((-0.15, SIDE / 2.0), "anchor=east", "clean");
        for (column, clean) in self.clean.iter().enumerate() {
            let at = (PITCH[0] * column as f64 + SIDE + 0.1, 0.0);
            text += &image(at, &clean.image);
            text += &below(at, &clean.label);
        }
        for (row, line) in self.lines.iter().enumerate() {
            let y = -PITCH[1] * (row + 1) as f64;
            let label = format!(
                "{}\\\\{{\\footnotesize {}}}",
                escape(&line.name),
                escape(&line.accuracy)
            );
            text += &node((-0.15, y + SIDE / 2.0), "anchor=east, align=right", &label);
            for (column, pair) in line.pairs.iter().enumerate() {
                let x = PITCH[0] * column as f64;
                text += &image((x, y), &pair.change);
                let at = (x + SIDE + 0.1, y);
                text += &image(at, &pair.attacked);
                let frame = match pair.outcome {
                    "fooled" => format!("line width=1.6pt, draw={}", tikz(FOOLED)),
                    "wrong" => format!("line width=1pt, dotted, draw={}", tikz(WRONG)),
                    _ => String::new(),
                };
                if !frame.is_empty() {
                    writeln!(text, "\\draw[{frame}] ({:.2},{y:.2}) rectangle +({SIDE},{SIDE});", at.0)
                        .expect("writing to a string succeeds");
                }
                text += &below(at, &pair.after);
            }
        }
        let [first, second] = self.legend();
        text += &format!(
            "\\node[anchor=south west, font=\\normalsize, align=left] at (current bounding box.north west) {{{}\\\\\
             \\footnotesize {}\\\\\\footnotesize {}}};\n",
            escape(&self.title),
            escape(&first),
            escape(&second)
        );
        document(&(text + "\\end{tikzpicture}\n"))
    }
}
