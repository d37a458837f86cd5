//! The JSON Schema of matrices.

use attacks::Registry;
use plan::Methods;
use plan::matrix::{Block, TableEntry, TableName};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The schema of a whole matrix: a block's keys may be at the top or in `blocks`.
pub(crate) fn schema(methods: &Methods) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut block = generator.root_schema_for::<Block>().to_value();
    let table = generator.subschema_for::<TableEntry>().to_value();
    let table_name = generator.subschema_for::<TableName>().to_value();
    let recipe = recipe(&mut generator);
    let attack = named(
        &methods.attacks,
        &["label", "epsilon", "limit"],
        &mut generator,
        &recipe,
    );
    let defense = named(
        &methods.defenses,
        &["label", "recipe", "teacher", "unlabeled"],
        &mut generator,
        &recipe,
    );
    let definitions = generator.take_definitions(true);

    let mut keys = block["properties"].take();
    keys["attacks"]["items"] = json!({ "$ref": "#/$defs/attack" });
    keys["defenses"]["items"] = json!({ "$ref": "#/$defs/defense" });
    keys["recipe"] = recipe;
    keys["dataset"] = json!({ "anyOf": [dataset_names(), keys["dataset"].take()] });
    let mut all_definitions = block["$defs"].take();
    let map = all_definitions.as_object_mut().expect("a map of definitions");
    map.extend(definitions);
    map.insert("attack".into(), attack);
    map.insert("defense".into(), defense);
    map.insert(
        "block".into(),
        json!({ "type": "object", "properties": keys, "additionalProperties": false }),
    );
    // Entries of these two are attacks and defenses as well.
    map["Transfer"]["properties"]["attacks"]["items"] = json!({ "$ref": "#/$defs/attack" });
    map["OtherNetwork"]["properties"]["defense"] = json!({ "$ref": "#/$defs/defense" });

    let mut top = keys;
    top["name"] = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
                          "description": "Names the folder of the run." });
    top["blocks"] = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/block" },
                            "description": "Several comparisons in one run; keys left out are taken from the top." });
    top["tables"] = json!({ "type": "array", "items": { "anyOf": [table_name, table] },
                            "description": "The tables to typeset." });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rampart matrix",
        "type": "object",
        "properties": top,
        "required": ["name"],
        "additionalProperties": false,
        "$defs": all_definitions,
    })
}

fn dataset_names() -> Value {
    let names: Vec<_> = datasets::entries().iter().map(|entry| entry.name).collect();
    json!({ "enum": names })
}

fn recipe(generator: &mut SchemaGenerator) -> Value {
    let mut fields = generator.root_schema_for::<defenses::Recipe>().to_value();
    let mut properties = fields["properties"].take();
    properties
        .as_object_mut()
        .expect("a map of properties")
        .remove("length");
    properties["from"] = json!({ "enum": ["shared", "authors"], "description": "What the other keys change." });
    properties["epochs"] = json!({ "type": "integer", "minimum": 1 });
    properties["steps"] = json!({ "type": "integer", "minimum": 1 });
    json!({ "anyOf": [
        { "enum": ["shared", "authors"] },
        { "type": "object", "properties": properties, "additionalProperties": false },
    ] })
}

/// A bare name, or a map with `name`, the harness's own keys and the method's fields.
fn named<T: ?Sized + 'static>(
    registry: &Registry<T>,
    harness_keys: &[&str],
    generator: &mut SchemaGenerator,
    recipe: &Value,
) -> Value {
    let names: Vec<_> = registry.entries().iter().map(|entry| entry.name).collect();
    let mut forms = vec![json!({ "enum": names })];
    for entry in registry.entries() {
        // A method's schema is a reference to its definition; its properties are wanted here.
        let schema = (entry.schema)(generator).to_value();
        let reference = schema["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next())
            .map(str::to_string);
        let own = reference
            .and_then(|name| generator.definitions().get(&name).cloned())
            .unwrap_or(schema);
        let mut properties = own.get("properties").cloned().unwrap_or_else(|| json!({}));
        if harness_keys.contains(&"recipe") {
            let properties = properties.as_object_mut().expect("a map of properties");
            properties.values_mut().for_each(or_list);
        }
        properties["name"] = json!({ "const": entry.name, "description": entry.summary });
        for key in harness_keys {
            properties[*key] = match *key {
                "recipe" => recipe.clone(),
                "teacher" => json!({ "anyOf": [{ "$ref": "#/$defs/OtherNetwork" }, { "const": "none" }],
                                     "description": "In place of the comparison's teacher." }),
                "unlabeled" => json!({ "$ref": "#/$defs/Unlabeled" }),
                "label" => json!({ "type": "string", "description": "The heading in tables." }),
                "limit" => json!({
                    "type": "integer", "minimum": 1,
                    "description": "Attack only this many of the test images, with the classes' shares kept.",
                }),
                _ => json!({ "anyOf": [
                        { "type": ["number", "string"] },
                        { "type": "array", "items": { "type": ["number", "string"] }, "minItems": 1 },
                    ], "description": "A radius of its own, such as `8/255`, or a list: the attack is run at each." }),
            };
        }
        forms.push(json!({
            "type": "object", "properties": properties, "required": ["name"], "additionalProperties": false,
        }));
    }
    json!({ "anyOf": forms })
}

/// Allows a list instead of a number of a defense, which is then trained at each value.
fn or_list(property: &mut Value) {
    let is_number = |name: &Value| name == "number" || name == "integer";
    let one = property["type"].clone();
    let several = one.as_array().is_some_and(|types| types.iter().any(is_number));
    if is_number(&one) || several {
        let keys = property.as_object_mut().expect("a property is a map");
        keys.remove("type");
        let many = json!({ "type": "array", "items": { "type": "number" }, "minItems": 1 });
        keys.insert("anyOf".into(), json!([{ "type": one }, many]));
    }
}
