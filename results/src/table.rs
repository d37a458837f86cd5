//! From a struct's declaration to a polars frame and back.

use std::fmt::Write as _;

use polars::prelude::*;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8 text.
    Text,
    /// True or false.
    Boolean,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Floating point, 32 bits.
    F32,
    /// Floating point, 64 bits.
    F64,
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name in Parquet and CSV.
    pub name: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Whether a row may leave it empty.
    pub nullable: bool,
    /// What it means.
    pub doc: &'static str,
}

/// A table's columns as Markdown.
pub fn columns_markdown(columns: &[ColumnInfo]) -> String {
    let mut text = String::from("| column | type | may be null | meaning |\n|---|---|---|---|\n");
    for column in columns {
        let nullable = if column.nullable { "yes" } else { "" };
        let doc = column.doc.trim().replace('|', "\\|");
        writeln!(text, "| `{}` | {} | {nullable} | {doc} |", column.name, column.kind)
            .expect("writing to a string succeeds");
    }
    text
}

/// Why a frame is not one of our tables.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("it has no column `{0}`")]
    Absent(&'static str),
    #[error("column `{0}` holds {1}, not {2}")]
    Type(&'static str, DataType, Type),
    #[error("column `{0}` has no value in row {1}")]
    Null(&'static str, usize),
    #[error("column `{0}` holds {1} in row {2}, which is unknown here")]
    Value(&'static str, String, usize),
}

/// A struct that is a row of a table; made by [`table!`].
pub(crate) trait Table: Sized {
    fn columns() -> &'static [ColumnInfo];
    fn to_frame(rows: &[Self]) -> PolarsResult<DataFrame>;
    fn from_frame(frame: &DataFrame) -> Result<Vec<Self>, Mismatch>;
}

/// A value that polars stores. `None` is null.
pub(crate) trait Scalar: Sized {
    const TYPE: Type;
    fn column<'a>(name: &'static str, values: impl Iterator<Item = Option<&'a Self>>) -> Column
    where
        Self: 'a;
    fn values(name: &'static str, column: &Column) -> Result<Vec<Option<Self>>, Mismatch>;
}

/// A field of a row: a scalar, or an optional one.
pub(crate) trait Field: Sized {
    type Scalar: Scalar;
    const NULLABLE: bool;
    fn scalar(&self) -> Option<&Self::Scalar>;
    fn field(scalar: Option<Self::Scalar>) -> Option<Self>;
}

impl<T: Scalar> Field for T {
    type Scalar = T;
    const NULLABLE: bool = false;

    fn scalar(&self) -> Option<&T> {
        Some(self)
    }

    fn field(scalar: Option<T>) -> Option<Self> {
        scalar
    }
}

impl<T: Scalar> Field for Option<T> {
    type Scalar = T;
    const NULLABLE: bool = true;

    fn scalar(&self) -> Option<&T> {
        self.as_ref()
    }

    fn field(scalar: Option<T>) -> Option<Self> {
        Some(scalar)
    }
}

macro_rules! scalar {
    ($($type:ty, $kind:ident, $access:ident;)+) => {$(
        impl Scalar for $type {
            const TYPE: Type = Type::$kind;

            fn column<'a>(name: &'static str, values: impl Iterator<Item = Option<&'a Self>>) -> Column {
                Column::new(name.into(), values.map(|value| value.copied()).collect::<Vec<_>>())
            }

            fn values(name: &'static str, column: &Column) -> Result<Vec<Option<Self>>, Mismatch> {
                let wrong = |_| Mismatch::Type(name, column.dtype().clone(), Self::TYPE);
                Ok(column.$access().map_err(wrong)?.iter().collect())
            }
        }
    )+};
}

scalar! {
    bool, Boolean, bool;
    u32, U32, u32;
    u64, U64, u64;
    f32, F32, f32;
    f64, F64, f64;
}

impl Scalar for String {
    const TYPE: Type = Type::Text;

    fn column<'a>(name: &'static str, values: impl Iterator<Item = Option<&'a Self>>) -> Column {
        text_column(name, values.map(|value| value.map(String::as_str)))
    }

    fn values(name: &'static str, column: &Column) -> Result<Vec<Option<Self>>, Mismatch> {
        Ok(text_values(name, column)?
            .map(|value| value.map(str::to_string))
            .collect())
    }
}

pub(crate) fn text_column<'a>(name: &'static str, values: impl Iterator<Item = Option<&'a str>>) -> Column {
    Column::new(name.into(), values.collect::<Vec<_>>())
}

pub(crate) fn text_values<'a>(
    name: &'static str,
    column: &'a Column,
) -> Result<impl Iterator<Item = Option<&'a str>>, Mismatch> {
    let wrong = |_| Mismatch::Type(name, column.dtype().clone(), Type::Text);
    Ok(column.str().map_err(wrong)?.iter())
}

pub(crate) fn write_field<'a, F: Field + 'a>(name: &'static str, fields: impl Iterator<Item = &'a F>) -> Column
where
    F::Scalar: 'a,
{
    F::Scalar::column(name, fields.map(Field::scalar))
}

/// The column's fields. A nullable column that the file lacks, because an older version wrote it,
/// reads as null.
pub(crate) fn read_field<F: Field>(name: &'static str, frame: &DataFrame) -> Result<std::vec::IntoIter<F>, Mismatch> {
    let values = match frame.column(name) {
        Ok(column) => F::Scalar::values(name, column)?,
        Err(_) if F::NULLABLE => (0..frame.height()).map(|_| None).collect(),
        Err(_) => return Err(Mismatch::Absent(name)),
    };
    let fields: Result<Vec<F>, Mismatch> = values
        .into_iter()
        .enumerate()
        .map(|(row, value)| F::field(value).ok_or(Mismatch::Null(name, row)))
        .collect();
    Ok(fields?.into_iter())
}

/// Declares a row: its struct, its columns and its way into a frame and back.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ pub $field:ident: $type:ty, )+
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $name {
            /// The table's columns, in order.
            pub const COLUMNS: &'static [$crate::ColumnInfo] = &[$(
                $crate::ColumnInfo {
                    name: stringify!($field),
                    kind: <<$type as $crate::table::Field>::Scalar as $crate::table::Scalar>::TYPE,
                    nullable: <$type as $crate::table::Field>::NULLABLE,
                    doc: concat!($($doc),+),
                },
            )+];
        }

        impl $crate::table::Table for $name {
            fn columns() -> &'static [$crate::ColumnInfo] {
                Self::COLUMNS
            }

            fn to_frame(rows: &[Self]) -> polars::prelude::PolarsResult<polars::prelude::DataFrame> {
                polars::prelude::DataFrame::new(rows.len(), vec![$(
                    $crate::table::write_field(stringify!($field), rows.iter().map(|row| &row.$field)),
                )+])
            }

            fn from_frame(frame: &polars::prelude::DataFrame) -> Result<Vec<Self>, $crate::table::Mismatch> {
                $( let mut $field = $crate::table::read_field::<$type>(stringify!($field), frame)?; )+
                Ok((0..frame.height())
                    .map(|_| Self { $( $field: $field.next().expect("a value for every row"), )+ })
                    .collect())
            }
        }
    };
}

pub(crate) use table;
