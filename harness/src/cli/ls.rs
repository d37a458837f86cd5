use std::io::Write;

use anyhow::Result;
use plan::Methods;

use super::args::{Listing, LsArgs};
use crate::catalogue::{self, List};
use crate::exit::Exit;

/// Lists what a matrix can name, or describes one of them in full.
pub(super) fn main(args: &LsArgs, methods: &Methods, out: &mut dyn Write) -> Result<Exit> {
    let method = match (args.kind, &args.name) {
        (Listing::Attacks, Some(name)) => Some(catalogue::attack(&methods.attacks, name)?),
        (Listing::Defenses, Some(name)) => Some(catalogue::defense(&methods.defenses, name)?),
        _ => None,
    };
    if let Some(method) = method {
        if args.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&method.json())?)?;
        } else {
            method.print(out)?;
        }
        return Ok(Exit::Success);
    }
    let (kind, mut list) = match args.kind {
        Listing::Attacks => ("attack", List::attacks(methods)),
        Listing::Defenses => ("defense", List::defenses(methods)),
        Listing::Models => ("model", List::models(methods)),
        Listing::Datasets => ("data set", List::datasets()),
    };
    if let Some(name) = &args.name {
        let all = list.items.clone();
        list.items.retain(|item| item["name"] == name.as_str());
        if list.items.is_empty() {
            let known = all.iter().filter_map(|item| item["name"].as_str());
            return Err(catalogue::unknown(kind, name, known));
        }
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&list.items)?)?;
    } else {
        list.print(out)?;
    }
    Ok(Exit::Success)
}
