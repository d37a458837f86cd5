//! MNIST: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
//!
//! 70,000 grey images `[1, 28, 28]`, white strokes on black.

use crate::entry::{Entry, Family, IdxFile, Remote, Storage};

pub(crate) const ENTRY: Entry = Entry {
    name: "mnist",
    summary: "handwritten digits, 28 × 28 grey, 60,000 + 10,000",
    source: "LeCun, Cortes, Burges: The MNIST database of handwritten digits, 1998",
    licence: "CC BY-SA 3.0",
    image: [1, 28, 28],
    classes: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    train: 60_000,
    test: 10_000,
    family: Family::Mnist,
    mirrors: &[
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ],
    storage: Storage::Idx([
        IdxFile {
            packed: Remote {
                name: "train-images-idx3-ubyte.gz",
                size: 9_912_422,
                md5: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            },
            unpacked: Some("6bbc9ace898e44ae57da46a324031adb"),
        },
        IdxFile {
            packed: Remote {
                name: "train-labels-idx1-ubyte.gz",
                size: 28_881,
                md5: "d53e105ee54ea40749a09fcbcd1e9432",
            },
            unpacked: Some("a25bea736e30d166cdddb491f175f624"),
        },
        IdxFile {
            packed: Remote {
                name: "t10k-images-idx3-ubyte.gz",
                size: 1_648_877,
                md5: "9fb629c4189551a2d022fa330f9573f3",
            },
            unpacked: Some("2646ac647ad5339dbf082846283269ea"),
        },
        IdxFile {
            packed: Remote {
                name: "t10k-labels-idx1-ubyte.gz",
                size: 4_542,
                md5: "ec29112dd5afa0611ce80d1b7f02629c",
            },
            unpacked: Some("27ae3e4e09519cfbb04c329615203637"),
        },
    ]),
};
