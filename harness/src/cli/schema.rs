use std::io::Write;

use anyhow::Result;
use plan::Methods;

use crate::catalogue;
use crate::exit::Exit;

/// Prints the JSON Schema of matrices.
pub(super) fn main(methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    writeln!(out, "{}", serde_json::to_string_pretty(&catalogue::schema(methods))?)?;
    Ok(Exit::Success)
}
