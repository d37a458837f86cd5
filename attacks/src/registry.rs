//! Methods by name: how a matrix's `{name: pgd, steps: 20}` becomes an attack or a defense.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Threat;

/// An attack or defense that a matrix can name.
///
/// The type itself is the configuration: a struct with `deny_unknown_fields` whose fields a user
/// writes beside the name. A field with a default that depends on the data set is an `Option` that
/// [`resolve`](Self::resolve) fills.
pub trait Method: std::fmt::Debug + Send + Sync + Serialize + DeserializeOwned + JsonSchema + 'static {
    /// The name in a matrix, in kebab case.
    const NAME: &'static str;
    /// Raised whenever the same configuration starts to give other numbers. Part of every cell's key.
    const VERSION: u32;
    /// One line for `rampart ls`.
    const SUMMARY: &'static str;
    /// Where the method comes from: authors, year, arXiv number.
    const SOURCE: &'static str;
    /// An entry of a matrix, as JSON, without the name. Tests parse it, help shows it.
    const EXAMPLE: &'static str;

    /// Fills every default that depends on the setting and checks every value. After it, no field
    /// is left open: the resolved configuration alone decides what the method does.
    fn resolve(&mut self, setting: &Setting) -> Result<(), Invalid>;
}

/// What a default may depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Which of the literature's protocols the data set follows.
    pub family: Family,
    /// The threat model.
    pub threat: Threat,
    /// The network, as the matrix names it.
    pub network: String,
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// K.
    pub classes: usize,
}

/// The papers give hyper-parameters for two kinds of data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Grey digits and the like: large radius, small network.
    Mnist,
    /// Small natural colour images.
    Cifar,
}

/// A value that a method cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// The field, with dots between levels: `attack.steps`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl Invalid {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    /// The same error one level further out.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self {
            field: format!("{outer}.{}", self.field),
            message: self.message,
        }
    }
}

/// A method with its configuration resolved.
#[derive(Debug)]
pub struct Configured<T: ?Sized> {
    /// [`Method::NAME`].
    pub name: &'static str,
    /// [`Method::VERSION`].
    pub version: u32,
    /// The resolved configuration.
    pub config: Value,
    /// The method.
    pub method: Arc<T>,
}

impl<T: ?Sized> Clone for Configured<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            version: self.version,
            config: self.config.clone(),
            method: self.method.clone(),
        }
    }
}

/// Why an entry of a matrix is not a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No method has that name.
    #[error("there is no {kind} `{name}`{}", suggest(.suggestion, .known))]
    UnknownName {
        /// `attack` or `defense`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// The nearest known name, if one is near.
        suggestion: Option<&'static str>,
        /// All known names.
        known: Vec<&'static str>,
    },
    /// A field is unknown, of the wrong type, or has a value that cannot be.
    #[error("{message}")]
    Field {
        /// The field, with dots between levels; empty if the entry as a whole is meant.
        field: String,
        /// What is wrong.
        message: String,
    },
}

fn suggest(suggestion: &Option<&'static str>, known: &[&'static str]) -> String {
    match suggestion {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; known: {}", known.join(", ")),
    }
}

/// One method of a registry.
pub struct Entry<T: ?Sized> {
    /// [`Method::NAME`].
    pub name: &'static str,
    /// [`Method::VERSION`].
    pub version: u32,
    /// [`Method::SUMMARY`].
    pub summary: &'static str,
    /// [`Method::SOURCE`].
    pub source: &'static str,
    /// [`Method::EXAMPLE`].
    pub example: &'static str,
    /// The JSON Schema of the configuration.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    parse: Box<Parse<T>>,
}

type Parse<T> = dyn Fn(Value, &Setting) -> Result<Configured<T>, ParseError> + Send + Sync;

impl<T: ?Sized> std::fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The methods of one kind, by name.
#[derive(Debug)]
pub struct Registry<T: ?Sized> {
    kind: &'static str,
    entries: Vec<Entry<T>>,
}

impl<T: ?Sized + 'static> Registry<T> {
    /// An empty registry of `kind`: `attack` or `defense`.
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            entries: Vec::new(),
        }
    }

    /// Adds a method. `upcast` is `|method| Arc::new(method)`.
    ///
    /// # Panics
    /// If the name is taken, or is not one that folders and labels can carry.
    pub fn add<M: Method>(&mut self, upcast: fn(M) -> Arc<T>) {
        suggest::check_name(self.kind, M::NAME).unwrap_or_else(|message| panic!("{message}"));
        assert!(
            self.get(M::NAME).is_none(),
            "two {}s are called `{}`",
            self.kind,
            M::NAME
        );
        self.entries.push(Entry {
            name: M::NAME,
            version: M::VERSION,
            summary: M::SUMMARY,
            source: M::SOURCE,
            example: M::EXAMPLE,
            schema: |generator| generator.subschema_for::<M>(),
            parse: Box::new(move |value, setting| parse::<M, T>(value, setting, upcast)),
        });
    }

    /// All methods, in the order in which they were added.
    pub fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// The method of that name.
    pub fn get(&self, name: &str) -> Option<&Entry<T>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The method `name` with the configuration `value` (a map without the name), resolved.
    pub fn parse(&self, name: &str, value: Value, setting: &Setting) -> Result<Configured<T>, ParseError> {
        match self.get(name) {
            Some(entry) => (entry.parse)(value, setting),
            None => {
                let known: Vec<_> = self.entries.iter().map(|entry| entry.name).collect();
                let suggestion = suggest::nearest(name, known.iter().copied());
                Err(ParseError::UnknownName {
                    kind: self.kind,
                    name: name.to_string(),
                    suggestion,
                    known,
                })
            }
        }
    }
}

fn parse<M: Method, T: ?Sized>(
    value: Value,
    setting: &Setting,
    upcast: fn(M) -> Arc<T>,
) -> Result<Configured<T>, ParseError> {
    let mut method: M = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        ParseError::Field {
            field,
            message: error.into_inner().to_string(),
        }
    })?;
    // Before `resolve`, which may already count with the numbers.
    let written = serde_json::to_value(&method).expect("a configuration is plain data");
    crate::check_bounds(&written, crate::MOST)
        .and_then(|()| method.resolve(setting))
        .map_err(|invalid| ParseError::Field {
            field: invalid.field,
            message: invalid.message,
        })?;
    let config = serde_json::to_value(&method).expect("a configuration is plain data");
    Ok(Configured {
        name: M::NAME,
        version: M::VERSION,
        config,
        method: upcast(method),
    })
}
