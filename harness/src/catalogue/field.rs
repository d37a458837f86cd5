//! The fields of a method's configuration, read from its schema.

use serde_json::{Map, Value};

use super::place::Place;

/// A field of a method's configuration.
pub(super) struct Field {
    /// With dots between levels: `attack.steps`.
    pub(super) name: String,
    pub(super) about: String,
    /// The default, either the same everywhere or one per setting.
    pub(super) defaults: Vec<(Place, Value)>,
    /// Whether it is required wherever its parent is given.
    pub(super) required: bool,
    /// The possible values, if they are names.
    pub(super) choices: Vec<(String, String)>,
}

/// The fields of a struct's schema, those of a struct inside it with its name before theirs.
pub(super) fn add_fields(
    schema: &Value,
    definitions: &Map<String, Value>,
    prefix: &str,
    configs: &[(Place, Value)],
    fields: &mut Vec<Field>,
) {
    let schema = definition(schema, definitions);
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (short, property) in properties {
        let name = format!("{prefix}{short}");
        let inner = definition(property, definitions);
        if inner["properties"].is_object() {
            add_fields(inner, definitions, &format!("{name}."), configs, fields);
            continue;
        }
        let value = |config: &Value| config.pointer(&format!("/{}", name.replace('.', "/"))).cloned();
        let defaults = configs
            .iter()
            .filter_map(|(place, config)| Some((*place, value(config)?)));
        fields.push(Field {
            about: one_line(&property["description"]),
            defaults: defaults.collect(),
            required: required(short),
            choices: choices(inner),
            name,
        });
    }
}

/// The schema behind references and behind the `null` of an optional field.
fn definition<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let reference = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    if let Some(inner) = reference.and_then(|name| definitions.get(name)) {
        return definition(inner, definitions);
    }
    let forms = schema["anyOf"].as_array().or_else(|| schema["allOf"].as_array());
    let other_than_null = |forms: &'a Vec<Value>| {
        let mut kept = forms.iter().filter(|form| form["type"] != "null");
        kept.next().filter(|_| kept.next().is_none())
    };
    match forms.and_then(other_than_null) {
        Some(inner) => definition(inner, definitions),
        None => schema,
    }
}

/// The names of an enumeration's values, each with its meaning.
fn choices(schema: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for form in schema["oneOf"].as_array().into_iter().flatten() {
        let about = one_line(&form["description"]);
        if let Some(name) = form["const"].as_str() {
            found.push((name.to_string(), about));
        } else if let Some(names) = form["enum"].as_array() {
            found.extend(
                names
                    .iter()
                    .filter_map(|name| Some((name.as_str()?.to_string(), String::new()))),
            );
        } else if let Some((name, inner)) = form["properties"]
            .as_object()
            .and_then(|properties| properties.iter().next())
        {
            let fields = inner["properties"].as_object();
            let fields = fields.map(|properties| properties.keys().cloned().collect::<Vec<_>>().join(", "));
            let written = fields.map_or_else(
                || format!("{{ {name}: … }}"),
                |fields| format!("{{ {name}: {{ {fields} }} }}"),
            );
            found.push((written, about));
        }
    }
    found
}

/// A doc comment as one line, without the brackets of links between items and without stars.
fn one_line(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`").replace("**", "")
}
