//! Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.
//!
//! 70,000 grey images `[1, 28, 28]` of clothes, in MNIST's format.

use crate::entry::{Entry, Family, IdxFile, Remote, Storage};

pub(crate) const ENTRY: Entry = Entry {
    name: "fashion-mnist",
    summary: "clothes, 28 × 28 grey, 60,000 + 10,000",
    source: "Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017, arXiv:1708.07747",
    licence: "MIT",
    image: [1, 28, 28],
    classes: &[
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    train: 60_000,
    test: 10_000,
    family: Family::Mnist,
    mirrors: &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
    storage: Storage::Idx([
        IdxFile {
            packed: Remote {
                name: "train-images-idx3-ubyte.gz",
                size: 26_421_880,
                md5: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            },
            unpacked: None,
        },
        IdxFile {
            packed: Remote {
                name: "train-labels-idx1-ubyte.gz",
                size: 29_515,
                md5: "25c81989df183df01b3e8a0aad5dffbe",
            },
            unpacked: None,
        },
        IdxFile {
            packed: Remote {
                name: "t10k-images-idx3-ubyte.gz",
                size: 4_422_102,
                md5: "bef4ecab320f06d8554ea6380940ec79",
            },
            unpacked: None,
        },
        IdxFile {
            packed: Remote {
                name: "t10k-labels-idx1-ubyte.gz",
                size: 5_148,
                md5: "bb300cfdad3c16e7a12a480ee83cd310",
            },
            unpacked: None,
        },
    ]),
};
