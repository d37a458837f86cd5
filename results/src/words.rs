//! Columns whose values are one of a few words.

/// Declares an enum whose variants are words in a column.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[$variant_meta])* #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the column.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        /// The first value, for rows that are filled in step by step.
        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;

            fn from_str(word: &str) -> Result<Self, $crate::words::UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::words::UnknownWord { word: word.to_string(), known: &[$($word),+] }),
                }
            }
        }

        impl $crate::table::Scalar for $name {
            const TYPE: $crate::Type = $crate::Type::Text;

            fn column<'a>(
                name: &'static str,
                values: impl Iterator<Item = Option<&'a Self>>,
            ) -> polars::prelude::Column {
                $crate::table::text_column(name, values.map(|value| value.map(|word| word.as_str())))
            }

            fn values(
                name: &'static str,
                column: &polars::prelude::Column,
            ) -> Result<Vec<Option<Self>>, $crate::table::Mismatch> {
                $crate::table::text_values(name, column)?
                    .enumerate()
                    .map(|(row, value)| {
                        let parse = |word: &str| word.parse();
                        value.map(parse).transpose().map_err(|error: $crate::words::UnknownWord| {
                            $crate::table::Mismatch::Value(name, error.to_string(), row)
                        })
                    })
                    .collect()
            }
        }
    };
}

pub(crate) use words;

/// A word that is not among those of its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}`, none of `{}`", known.join("`, `"))]
pub struct UnknownWord {
    /// The word.
    pub word: String,
    /// The words of the column.
    pub known: &'static [&'static str],
}

words! {
    /// A checkpoint of a training.
    pub enum Checkpoint {
        /// The epoch with the highest robust accuracy on the selection images.
        Best = "best",
        /// The last epoch.
        Last = "last",
    }
}

words! {
    /// Which images chose the best checkpoint.
    pub enum Selection {
        /// Images held out of the training set.
        Validation = "validation",
        /// The test images themselves, which inflates the result.
        Test = "test",
        /// Nothing was chosen.
        None = "none",
    }
}

words! {
    /// What an evaluation did to the images.
    pub enum Kind {
        /// Nothing.
        Natural = "natural",
        /// An attack with access to the network's gradients.
        WhiteBox = "white-box",
        /// An attack that queries logits and sees nothing else.
        Query = "query",
        /// An attack crafted on another network.
        Transfer = "transfer",
    }
}

words! {
    /// How an evaluation ended.
    pub enum Status {
        /// With a count.
        Done = "done",
        /// With an error.
        Failed = "failed",
    }
}

words! {
    /// What was timed.
    pub enum TimingKind {
        /// The training of a network.
        Train = "train",
        /// The attack on a checkpoint.
        Evaluate = "evaluate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert_eq!(
            "both".parse::<Checkpoint>().unwrap_err().to_string(),
            "`both`, none of `best`, `last`"
        );
    }
}
