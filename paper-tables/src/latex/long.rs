//! The long form: a longtable, which may span pages.

use minijinja::context;

use super::escape::escape;
use super::parts::{filled, marks, notes, row};
use crate::long_form;
use crate::table::{Block, Table};

/// The table, and whether it needs a page's longer side.
pub(super) fn fragment(table: &Table) -> (String, bool) {
    let heads = long_form::heads(table);
    let block = |block: &Block| {
        let line = |line: long_form::LongLine| {
            let text = match (line.mean.as_str(), line.bold) {
                ("failed", _) => "\\textit{failed}".to_string(),
                (mean, true) => format!("\\textbf{{{mean}}}"),
                (mean, false) => escape(mean),
            };
            let names = line.names.iter().map(|name| escape(name));
            let numbers = line.numbers.iter().map(|number| escape(number));
            row(names.chain([text + &marks(&line.marks)]).chain(numbers))
        };
        let lines: Vec<String> = long_form::lines(table, block).into_iter().map(line).collect();
        // A space between defenses.
        let groups: Vec<Vec<String>> = lines
            .chunks(table.columns.len().max(1))
            .map(<[String]>::to_vec)
            .collect();
        context! { heading => escape(&block.heading()), groups }
    };
    let of_head = |head: &&str| match *head {
        "defense" | "attack" | "flags" => 'l',
        "95% interval" => 'c',
        _ => 'r',
    };
    let values = context! {
        id => table.id.clone(),
        title => escape(&table.title),
        alignment => heads.iter().map(of_head).collect::<String>(),
        head => row(heads.iter().map(|head| escape(head))),
        blocks => table.blocks.iter().map(block).collect::<Vec<_>>(),
        columns => heads.len(),
        notes => notes(table),
    };
    (
        filled(include_str!("../../templates/long.tex"), values),
        heads.len() > 7,
    )
}
