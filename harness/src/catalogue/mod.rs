//! What a matrix can name: lists, one method in full, and the JSON Schema.

mod field;
mod list;
mod method;
mod place;
mod print;
mod schema;
mod text;

pub(crate) use self::list::List;
pub(crate) use self::method::{attack, defense, unknown};
pub(crate) use self::schema::schema;
