//! The target classes of a targeted attack.

use crate::Invalid;

/// Fills the number of target classes: 9, or all wrong ones if there are fewer.
pub(crate) fn resolve_targets(targets: &mut Option<u64>, classes: usize) -> Result<(), Invalid> {
    let most = classes.saturating_sub(1) as u64;
    let targets = *targets.get_or_insert(most.min(9));
    crate::positive("targets", targets)?;
    if targets > most {
        return Err(Invalid::new(
            "targets",
            format!("targets is {targets}, but of {classes} classes only {most} are wrong"),
        ));
    }
    Ok(())
}
