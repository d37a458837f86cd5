//! All blocks of a matrix, then its tables.

use std::cell::RefCell;
use std::collections::HashMap;

use super::scope::Scope;
use crate::matrix::{DatasetEntry, Matrix, MatrixError};
use crate::methods::Methods;
use crate::plan::Plan;
use crate::tables::table_specs;
use crate::yaml::Path;

/// The digest of each data set's content, by how the matrix cuts it.
pub type Digests = HashMap<DatasetEntry, String>;

/// Resolves a matrix. `seed` replaces the seeds of every block, if given. Keys depend on the content of the data sets, so
/// those of a plan resolved without `digests` belong to no data: such a plan finds every mistake and names the data sets
/// to read ([`Plan::datasets`]).
///
/// # Errors
/// All mistakes of the matrix, with their places.
pub fn resolve(
    matrix: &Matrix,
    methods: &Methods,
    seed: Option<u64>,
    digests: Option<&Digests>,
) -> Result<Plan, MatrixError> {
    let mut plan = Plan::new(&matrix.name);
    let mistakes = RefCell::new(matrix.mistakes.clone());
    for (index, block) in matrix.blocks.iter().enumerate() {
        let seeds = seed.map_or_else(|| block.seeds.clone(), |seed| vec![seed]);
        let entry = match datasets::entry(&block.dataset.name) {
            Ok(entry) => entry,
            Err(error) => {
                let mistake = matrix.mistake(index, "dataset.name", error.to_string());
                mistakes.borrow_mut().extend(mistake);
                continue;
            }
        };
        // Without data, each source stands for its content.
        let source = || {
            format!(
                "{} {} {:?}",
                block.dataset.name, block.dataset.verify, block.dataset.extra
            )
        };
        let digest = digests.map_or_else(source, |digests| digests[&block.dataset].clone());
        plan.add_dataset(&block.dataset);
        let scope = Scope {
            matrix,
            methods,
            index,
            block,
            seeds,
            entry,
            digest: &digest,
            mistakes: &mistakes,
        };
        scope.add_to(&mut plan);
    }
    let mistakes = mistakes.into_inner();
    // What tables show depends on all cells.
    if !mistakes.is_empty() {
        return Err(MatrixError::of(&matrix.source.file, mistakes));
    }
    plan.tables = table_specs(&plan, &matrix.tables).map_err(|mistakes| {
        let mistakes = mistakes.into_iter().map(|(i, (field, message))| {
            let path = Path::default().key("tables").index(i).dotted(field);
            matrix.source.mistake(&path, message)
        });
        MatrixError::of(&matrix.source.file, mistakes.collect())
    })?;
    plan.worst_of = matrix.tables.iter().flat_map(|entry| entry.worst_of.clone()).collect();
    Ok(plan)
}
