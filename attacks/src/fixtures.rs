//! Fixtures of this crate's own types: [`testing`] has the same for the crates that build on this one.

use crate::{Batch, Family, Norm, Setting, Threat};

/// The batch of [`testing::waves`].
pub(crate) fn waves(examples: usize, shape: [usize; 3], classes: usize) -> Batch {
    let batch = testing::waves(examples, shape, classes);
    Batch {
        images: batch.images,
        labels: batch.labels,
        ids: batch.ids,
    }
}

/// The setting of [`testing::setting`].
pub(crate) fn setting(family: Family, norm: Norm) -> Setting {
    let family_there = match family {
        Family::Mnist => testing::Family::Mnist,
        Family::Cifar => testing::Family::Cifar,
    };
    let norm_there = match norm {
        Norm::Linf => testing::Norm::Linf,
        Norm::L2 => testing::Norm::L2,
    };
    let setting = testing::setting(family_there, norm_there);
    Setting {
        family,
        threat: Threat {
            norm,
            epsilon: setting.threat.epsilon.to_string().parse().unwrap(),
        },
        network: setting.network,
        image: setting.image,
        classes: setting.classes,
    }
}
