//! The folder of all data sets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::DataError;

/// The folder of all data sets: `explicit`, else the environment variable `RAMPART_DATA_DIR`, else
/// `data` in the user's cache folder for Rampart.
///
/// It contains `mnist/`, `fashion-mnist/`, `cifar-10-batches-bin/` and `cifar-100-binary/`. A folder with the files of
/// one data set can be given as well.
///
/// # Errors
/// [`DataError::NoRoot`] if nothing is named and the user has no home.
pub fn root(explicit: Option<&Path>) -> Result<PathBuf, DataError> {
    choose(explicit, std::env::var_os("RAMPART_DATA_DIR"))
}

fn choose(explicit: Option<&Path>, variable: Option<OsString>) -> Result<PathBuf, DataError> {
    if let Some(path) = explicit {
        return Ok(path.to_path_buf());
    }
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let folders = directories::ProjectDirs::from("", "", "rampart").ok_or(DataError::NoRoot)?;
    Ok(folders.cache_dir().join("data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_choice_wins() {
        let explicit = Path::new("/explicit");
        assert_eq!(choose(Some(explicit), Some("/variable".into())).unwrap(), explicit);
        assert_eq!(choose(None, Some("/variable".into())).unwrap(), Path::new("/variable"));
        let cache = choose(None, None).unwrap();
        assert!(cache.ends_with("data") && cache.is_absolute());
        assert_eq!(choose(None, Some("".into())).unwrap(), cache);
    }
}
