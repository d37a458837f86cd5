//! CIFAR-100: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
//!
//! 60,000 colour images `[3, 32, 32]`. Each record is one byte for the coarse label (20 classes), one
//! for the fine label (100 classes), then the pixels. The fine label is used.

use crate::entry::{Entry, Family, Member, Remote, Storage};

pub(crate) const ENTRY: Entry = Entry {
    name: "cifar100",
    summary: "a hundred kinds of things, 32 × 32 colour, 50,000 + 10,000",
    source: "Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
    licence: "none stated; the author asks to be cited",
    image: [3, 32, 32],
    #[rustfmt::skip]
    classes: &[
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
        "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
        "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
        "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
        "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
        "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
        "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
        "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
        "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
        "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ],
    train: 50_000,
    test: 10_000,
    family: Family::Cifar,
    mirrors: &["https://www.cs.toronto.edu/~kriz/"],
    storage: Storage::Cifar {
        archive: Remote {
            name: "cifar-100-binary.tar.gz",
            size: 168_513_733,
            md5: "03b5dce01913d631647c71ecec9e9cb8",
        },
        folder: "cifar-100-binary",
        train: &[Member {
            name: "train.bin",
            size: 50_000 * (2 + 3072),
            md5: None,
        }],
        test: &[Member {
            name: "test.bin",
            size: 10_000 * (2 + 3072),
            md5: None,
        }],
        labels: &[20, 100],
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundred_classes_are_in_alphabetical_order() {
        assert_eq!(ENTRY.classes.len(), 100);
        assert!(ENTRY.classes.is_sorted());
    }
}
