//! One method in full: its fields, what they are unless given, and how its authors train.

use std::io::Write;

use anyhow::Result;
use attacks::{Entry, Family, Norm, Registry, Setting, Threat};
use defenses::{Defense, Recipe};
use plan::nearest;
use plan::written_recipe;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::ls::flow;
use crate::exit::Stop;

/// What is known of one method of a registry.
pub(crate) struct Method {
    name: &'static str,
    summary: &'static str,
    source: &'static str,
    version: u32,
    example: String,
    fields: Vec<Field>,
    recipes: Vec<(Place, Option<Recipe>)>,
}

/// A field of a method's configuration.
struct Field {
    /// With dots between levels: `attack.steps`.
    name: String,
    about: String,
    /// What it is unless given, where that is the same everywhere or by place.
    defaults: Vec<(Place, Value)>,
    /// Whether it must be given where what it belongs to is.
    required: bool,
    /// What can be written, if these are names.
    choices: Vec<(String, String)>,
}

/// A setting that stands for many: defaults depend on the data set's kind, the norm and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    name: &'static str,
    family: Family,
    norm: Norm,
    epsilon: (u64, u64),
    network: &'static str,
}

/// The first two come first wherever they differ; the others are said only where they differ from those.
const PLACES: [Place; 5] = [
    Place::new("colour", Family::Cifar, Norm::Linf, (8, 255), "resnet18"),
    Place::new("grey", Family::Mnist, Norm::Linf, (3, 10), "small-cnn"),
    Place::new("wide networks", Family::Cifar, Norm::Linf, (8, 255), "wrn-34-10"),
    Place::new("colour, l2", Family::Cifar, Norm::L2, (1, 2), "resnet18"),
    Place::new("grey, l2", Family::Mnist, Norm::L2, (2, 1), "small-cnn"),
];

/// What the places mean.
const LEGEND: &str = "colour: images like CIFAR-10's, linf 8/255, resnet18; grey: like MNIST's, linf 0.3, small-cnn; \
                      l2: 0.5 in colour, 2 in grey; wide networks: wrn-34-10 in colour.";

impl Place {
    const fn new(name: &'static str, family: Family, norm: Norm, epsilon: (u64, u64), network: &'static str) -> Self {
        Self {
            name,
            family,
            norm,
            epsilon,
            network,
        }
    }

    fn setting(self) -> Setting {
        Setting {
            family: self.family,
            threat: Threat {
                norm: self.norm,
                epsilon: attacks::Pixels::new(self.epsilon.0, self.epsilon.1),
            },
            network: self.network.to_string(),
            image: match self.family {
                Family::Cifar => [3, 32, 32],
                Family::Mnist => [1, 28, 28],
            },
            classes: 10,
        }
    }
}

/// The attack of that name.
pub(crate) fn attack(registry: &Registry<dyn attacks::Attack>, name: &str) -> Result<Method> {
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

/// The one among `names` that is asked for; else an error that names them.
pub(crate) fn unknown<'a>(kind: &str, name: &str, names: impl Iterator<Item = &'a str>) -> anyhow::Error {
    let names: Vec<&str> = names.collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("known: {}", names.join(", ")),
    };
    Stop::usage(format!("there is no {kind} `{name}`; {hint}"))
}

fn find<'a, T: ?Sized + 'static>(registry: &'a Registry<T>, kind: &str, name: &str) -> Result<&'a Entry<T>> {
    let names = registry.entries().iter().map(|it| it.name);
    registry.get(name).ok_or_else(|| unknown(kind, name, names))
}

/// A method with nothing written but its name; with its example's fields, where it cannot do without.
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
        example: super::ls::example(entry.name, entry.example),
        fields,
        recipes: Vec::new(),
    }
}

/// The fields of a struct's schema, those of a struct inside it with its name before theirs.
fn add_fields(
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
            .is_some_and(|it| it.iter().any(|it| it == name))
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

/// What a schema refers to: through references, and through the null that an open field may be.
fn definition<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let reference = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next());
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

/// The names an enumeration takes, each with what it means.
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
        } else if let Some((name, inner)) = form["properties"].as_object().and_then(|it| it.iter().next()) {
            let fields = inner["properties"].as_object();
            let fields = fields.map(|it| it.keys().cloned().collect::<Vec<_>>().join(", "));
            let written = fields.map_or_else(|| format!("{{ {name}: … }}"), |it| format!("{{ {name}: {{ {it} }} }}"));
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

    /// For readers.
    pub(crate) fn write(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{}: {}\n", self.name, self.summary)?;
        writeln!(out, "source   {}", self.source)?;
        writeln!(out, "version  {}", self.version)?;
        writeln!(out, "example  {}", self.example)?;
        for field in &self.fields {
            writeln!(out, "\n{} = {}", field.name, shown_defaults(field))?;
            write_folded(out, &field.about)?;
            for (name, about) in &field.choices {
                write_folded(out, &format!("{name}: {about}"))?;
            }
        }
        let shown: Vec<(Place, Value)> = self
            .recipes
            .iter()
            .map(|(place, recipe)| (*place, recipe.as_ref().map_or(json!("not given"), written_recipe)))
            .collect();
        if !shown.is_empty() {
            writeln!(
                out,
                "\nrecipe of the authors (`recipe: authors`; where it is not given, the shared one stands in)"
            )?;
            for (names, recipe) in grouped(&shown) {
                write_folded(out, &format!("{}: {}", names.join("; "), plain(&recipe)))?;
            }
        }
        if self.differs() {
            writeln!(out)?;
            for line in folded(LEGEND, WIDTH) {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    /// Whether a reader must know what the places mean.
    fn differs(&self) -> bool {
        !self.recipes.is_empty() || self.fields.iter().any(|field| grouped(&field.defaults).len() > 1)
    }
}

fn by_place(values: &[(Place, Value)]) -> Map<String, Value> {
    values
        .iter()
        .map(|(place, value)| (place.name.to_string(), value.clone()))
        .collect()
}

/// Every value once, with the names of its places; a place is left out where it is like the one it belongs to.
fn grouped(values: &[(Place, Value)]) -> Vec<(Vec<&'static str>, Value)> {
    let at = |name: &str| {
        values
            .iter()
            .find(|(place, _)| place.name == name)
            .map(|(_, value)| value)
    };
    let mut groups: Vec<(Vec<&'static str>, Value)> = Vec::new();
    for (place, value) in values {
        let base = if place.family == Family::Cifar {
            "colour"
        } else {
            "grey"
        };
        if place.name != base && at(base) == Some(value) {
            continue;
        }
        match groups.iter_mut().find(|(_, other)| other == value) {
            Some((names, _)) => names.push(place.name),
            None => groups.push((vec![place.name], value.clone())),
        }
    }
    groups
}

/// `10`, or `2/255 (colour), 0.01 (grey)`.
fn shown_defaults(field: &Field) -> String {
    let groups = grouped(&field.defaults);
    match &groups[..] {
        [] if !field.required => "none".to_string(),
        [] => match field.name.rsplit_once('.') {
            Some((group, _)) => format!("none; must be given where `{group}` is"),
            None => "none; must be given".to_string(),
        },
        [(_, value)] => plain(value),
        _ => {
            let shown = groups
                .iter()
                .map(|(names, value)| format!("{} ({})", plain(value), names.join("; ")));
            shown.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A value as a matrix has it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => flow(map.clone()),
        Value::Null => "none".to_string(),
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").unwrap_or(&text).to_string()
        }
        other => other.to_string(),
    }
}

const WIDTH: usize = 100;

fn write_folded(out: &mut dyn Write, text: &str) -> Result<()> {
    for (i, line) in folded(text, WIDTH - 6).iter().enumerate() {
        writeln!(out, "{}{line}", if i == 0 { "    " } else { "      " })?;
    }
    Ok(())
}

/// The words of a text in lines of at most `width` characters, if no word is longer.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("one at least");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_string());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::Methods;

    fn text(method: &Method) -> String {
        let mut out = Vec::new();
        method.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_method_tells_all_its_fields() {
        let methods = Methods::builtin();
        let attacks = methods
            .attacks
            .entries()
            .iter()
            .map(|it| attack(&methods.attacks, it.name));
        let defenses = methods
            .defenses
            .entries()
            .iter()
            .map(|it| defense(&methods.defenses, it.name));
        for method in attacks.chain(defenses).map(Result::unwrap) {
            let text = text(&method);
            assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
            for field in &method.fields {
                assert!(!field.about.is_empty(), "{}: {} says nothing", method.name, field.name);
                // Those of a group that may be left out have none.
                assert!(
                    !field.defaults.is_empty() || field.name.contains('.'),
                    "{}: {} has no default",
                    method.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn defaults_are_those_that_a_matrix_gets() {
        let methods = Methods::builtin();
        let mart = text(&defense(&methods.defenses, "mart").unwrap());
        for line in [
            "lambda = 5 (colour; grey), 6 (wide networks)",
            "attack.step_size = 2/255 (colour), 0.01 (grey), 0.125 (colour, l2), 0.5 (grey, l2)",
            "attack.start = { gaussian: { sigma: 0.001 } }",
            "    natural: BCE on the clean images.",
            "    grey; colour, l2: not given",
        ] {
            assert!(mart.lines().any(|it| it == line), "`{line}` is not in\n{mart}");
        }
        let json = defense(&methods.defenses, "mart").unwrap().json();
        assert_eq!(json["recipes"]["wide networks"]["epochs"], 90);
        assert_eq!(json["recipes"]["grey"], Value::Null);
    }

    #[test]
    fn a_name_that_is_none_gets_a_hint() {
        let methods = Methods::builtin();
        let error = attack(&methods.attacks, "pdg").err().unwrap();
        assert_eq!(error.to_string(), "there is no attack `pdg`; did you mean `pgd`?");
    }
}
