use std::io::Write;

use anyhow::Result;
use attacks::Registry;
use comfy_table::{ContentArrangement, Table, presets};
use plan::Methods;
use serde_json::{Value, json};

use super::method::{self, unknown};
use crate::cli::Listing;
use crate::exit::Exit;

/// Lists what a matrix can name, or tells one of them in full.
pub(crate) fn main(
    kind: Listing,
    name: Option<&str>,
    as_json: bool,
    methods: &Methods,
    out: &mut dyn Write,
) -> Result<Exit> {
    let method = match (kind, name) {
        (Listing::Attacks, Some(name)) => Some(method::attack(&methods.attacks, name)?),
        (Listing::Defenses, Some(name)) => Some(method::defense(&methods.defenses, name)?),
        _ => None,
    };
    if let Some(method) = method {
        match as_json {
            true => writeln!(out, "{}", serde_json::to_string_pretty(&method.json())?)?,
            false => method.write(out)?,
        }
        return Ok(Exit::Success);
    }
    let mut items: Vec<Value> = match kind {
        Listing::Attacks => of_registry(&methods.attacks),
        Listing::Defenses => of_registry(&methods.defenses),
        Listing::Models => methods
            .networks
            .entries()
            .iter()
            .map(|it| json!({ "name": it.name, "summary": it.summary, "source": it.source, "version": it.version }))
            .collect(),
        Listing::Datasets => datasets::entries()
            .iter()
            .map(|it| {
                let [c, h, w] = it.image;
                json!({
                    "name": it.name, "summary": it.summary, "source": it.source, "licence": it.licence,
                    "image": format!("{c}×{h}×{w}"), "classes": it.classes.len(), "train": it.train, "test": it.test,
                })
            })
            .collect(),
    };
    if let Some(name) = name {
        let known = items.clone();
        items.retain(|it| it["name"] == name);
        if items.is_empty() {
            let kind = if kind == Listing::Models { "model" } else { "data set" };
            return Err(unknown(kind, name, known.iter().filter_map(|it| it["name"].as_str())));
        }
    }
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(&items)?)?;
        return Ok(Exit::Success);
    }
    let columns: &[&str] = match kind {
        Listing::Datasets => &["name", "summary", "image", "classes", "train", "test", "licence"],
        Listing::Models => &["name", "summary", "source"],
        Listing::Attacks | Listing::Defenses => &["name", "summary", "source", "example"],
    };
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(columns);
    for item in &items {
        let cell = |column: &&str| match &item[*column] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.add_row(columns.iter().map(cell));
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(Exit::Success)
}

fn of_registry<T: ?Sized + 'static>(registry: &Registry<T>) -> Vec<Value> {
    let entries = registry.entries().iter();
    let item = |it: &attacks::Entry<T>| {
        json!({
            "name": it.name, "summary": it.summary, "source": it.source, "version": it.version,
            "example": example(it.name, it.example),
        })
    };
    entries.map(item).collect()
}

/// An entry as it stands in a matrix: `{ name: pgd, steps: 20 }`.
pub(crate) fn example(name: &str, fields: &str) -> String {
    let mut entry = serde_json::Map::from_iter([("name".to_string(), json!(name))]);
    entry.extend(serde_json::from_str::<serde_json::Map<_, _>>(fields).unwrap_or_default());
    // The name comes first whatever order the map keeps.
    let name = entry.remove("name").map(|name| ("name".to_string(), name));
    flow(name.into_iter().chain(entry))
}

/// A map in YAML's flow form.
pub(crate) fn flow(fields: impl IntoIterator<Item = (String, Value)>) -> String {
    let field = |(key, value): (String, Value)| match value {
        Value::String(text) => format!("{key}: {text}"),
        Value::Object(map) => format!("{key}: {}", flow(map)),
        other => format!("{key}: {other}"),
    };
    format!("{{ {} }}", fields.into_iter().map(field).collect::<Vec<_>>().join(", "))
}
