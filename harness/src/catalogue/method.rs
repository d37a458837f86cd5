//! One method: its fields, their defaults, and the recipe of its authors.

use anyhow::Result;
use attacks::{Attack, Entry, Registry, Setting};
use defenses::{Defense, Recipe};
use plan::written_recipe;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::field::{Field, add_fields};
use super::place::{PLACES, Place, by_place};
use super::text::example;
use crate::exit::Stop;

/// What is known about one method of a registry.
pub(crate) struct Method {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) source: &'static str,
    pub(super) version: u32,
    pub(super) example: String,
    pub(super) fields: Vec<Field>,
    pub(super) recipes: Vec<(Place, Option<Recipe>)>,
}

/// The attack of that name.
pub(crate) fn attack(registry: &Registry<dyn Attack>, name: &str) -> Result<Method> {
    Ok(describe(registry, find(registry, "attack", name)?))
}

/// The defense of that name, with its authors' recipes.
pub(crate) fn defense(registry: &Registry<dyn Defense>, name: &str) -> Result<Method> {
    let mut method = describe(registry, find(registry, "defense", name)?);
    method.recipes = PLACES
        .into_iter()
        .filter_map(|place| {
            let setting = place.setting();
            let config = configured(registry, name, &setting)?;
            Some((place, config.method.authors_recipe(&setting)))
        })
        .collect();
    Ok(method)
}

/// An error for a name that is not in `names`.
pub(crate) fn unknown<'a>(kind: &str, name: &str, names: impl Iterator<Item = &'a str>) -> anyhow::Error {
    Stop::usage(format!("there is no {kind} `{name}`; {}", suggest::hint(name, names)))
}

fn find<'a, T: ?Sized + 'static>(registry: &'a Registry<T>, kind: &str, name: &str) -> Result<&'a Entry<T>> {
    let names = registry.entries().iter().map(|entry| entry.name);
    registry.get(name).ok_or_else(|| unknown(kind, name, names))
}

/// A method given by its name alone, or with its example's fields if some are required.
fn configured<T: ?Sized + 'static>(
    registry: &Registry<T>,
    name: &str,
    setting: &Setting,
) -> Option<attacks::Configured<T>> {
    let example = registry
        .get(name)
        .and_then(|entry| serde_json::from_str(entry.example).ok());
    let bare = registry.parse(name, json!({}), setting).ok();
    bare.or_else(|| registry.parse(name, example?, setting).ok())
}

fn describe<T: ?Sized + 'static>(registry: &Registry<T>, entry: &Entry<T>) -> Method {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let schema = (entry.schema)(&mut generator).to_value();
    let definitions: Map<String, Value> = generator.take_definitions(true);
    let configs: Vec<(Place, Value)> = PLACES
        .into_iter()
        .filter_map(|place| Some((place, configured(registry, entry.name, &place.setting())?.config)))
        .collect();
    let mut fields = Vec::new();
    add_fields(&schema, &definitions, "", &configs, &mut fields);
    // The method's own before those of the attack inside it.
    fields.sort_by_key(|field| field.name.contains('.'));
    Method {
        name: entry.name,
        summary: entry.summary,
        source: entry.source,
        version: entry.version,
        example: example(entry.name, entry.example),
        fields,
        recipes: Vec::new(),
    }
}

impl Method {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let fields = self.fields.iter().map(|field| {
            let defaults: Map<String, Value> = by_place(&field.defaults);
            let choices: Vec<&str> = field.choices.iter().map(|(name, _)| &name[..]).collect();
            json!({ "field": field.name, "about": field.about, "choices": choices, "defaults": defaults })
        });
        let recipes = self.recipes.iter().map(|(place, recipe)| {
            let recipe = recipe.as_ref().map_or(Value::Null, written_recipe);
            (*place, recipe)
        });
        json!({
            "name": self.name, "summary": self.summary, "source": self.source, "version": self.version,
            "example": self.example, "fields": fields.collect::<Vec<_>>(),
            "recipes": by_place(&recipes.collect::<Vec<_>>()),
        })
    }
}
