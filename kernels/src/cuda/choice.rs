//! Which of the algorithms that cuDNN offers a convolution takes.

/// How an algorithm multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Math {
    /// As its operands are.
    Exact,
    /// On tensor cores, f32 rounded to TF32.
    TensorCores,
    /// On tensor cores, f32 rounded to 16 bits: less precise than requested.
    Converted,
}

/// One algorithm that cuDNN offers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Offer<A> {
    pub(crate) algorithm: A,
    /// Whether it works for the shape at all.
    pub(crate) works: bool,
    /// Bytes of workspace.
    pub(crate) workspace: usize,
    /// Whether it gives the same bits every time.
    pub(crate) repeats: bool,
    pub(crate) math: Math,
}

/// What may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Bytes of workspace available.
    pub(crate) workspace: usize,
    pub(crate) deterministic: bool,
    /// Whether f32 must stay f32.
    pub(crate) exact: bool,
}

/// The first offer that may be taken; cuDNN puts the best one first.
pub(crate) fn choose<A: Copy>(offers: &[Offer<A>], wish: Wish) -> Option<Offer<A>> {
    let fits = |offer: &&Offer<A>| {
        offer.works
            && offer.workspace <= wish.workspace
            && (offer.repeats || !wish.deterministic)
            && offer.math != Math::Converted
            && (offer.math == Math::Exact || !wish.exact)
    };
    offers.iter().find(fits).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_may_be_taken_is() {
        let fast = Offer {
            algorithm: 0,
            works: true,
            workspace: 10,
            repeats: true,
            math: Math::TensorCores,
        };
        let wish = Wish {
            workspace: 10,
            deterministic: false,
            exact: false,
        };
        let last = Offer {
            algorithm: 1,
            workspace: 0,
            math: Math::Exact,
            ..fast
        };
        let chosen = |first: Offer<i32>, wish: Wish| choose(&[first, last], wish).map(|offer| offer.algorithm);
        assert_eq!(chosen(fast, wish), Some(0));
        assert_eq!(chosen(Offer { works: false, ..fast }, wish), Some(1));
        assert_eq!(chosen(Offer { workspace: 11, ..fast }, wish), Some(1));
        assert_eq!(
            chosen(
                Offer {
                    math: Math::Converted,
                    ..fast
                },
                wish
            ),
            Some(1)
        );
        assert_eq!(chosen(fast, Wish { exact: true, ..wish }), Some(1));
        let unsteady = Offer { repeats: false, ..fast };
        assert_eq!(chosen(unsteady, wish), Some(0));
        let repeatable = Wish {
            deterministic: true,
            ..wish
        };
        assert_eq!(chosen(unsteady, repeatable), Some(1));
        assert_eq!(choose(&[unsteady], repeatable), None);
    }
}
