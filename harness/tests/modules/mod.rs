//! Reads a crate's source: its files, what each defines, and which file uses what of which other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemImpl, ItemUse, UseTree, Visibility};

/// A crate's own files.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) files: Vec<SourceFile>,
}

/// One source file without its tests.
pub(crate) struct SourceFile {
    /// From `src`, with `/` between folders.
    pub(crate) path: String,
    /// Its module, such as `["frozen", "forward"]`; the crate's root is empty.
    module: Vec<String>,
    /// The module's documentation, on one line.
    pub(crate) header: String,
    pub(crate) lines: usize,
    /// Every function with its lines.
    pub(crate) functions: Vec<(String, usize)>,
    impls: BTreeSet<String>,
    /// Names that are defined here.
    defines: BTreeSet<String>,
    /// Re-exported names: `pub use self::x::Y`.
    hands_on: HashMap<String, Vec<String>>,
    /// Modules that are re-exported as a whole: `pub use self::x::*`.
    hands_on_all: Vec<Vec<String>>,
    /// What each imported name means.
    imports: HashMap<String, Vec<String>>,
    /// Every path that is used.
    uses: Vec<Vec<String>>,
}

/// Which files a file uses, and which names of each.
pub(crate) type Dependencies = BTreeMap<String, BTreeMap<String, Vec<String>>>;

impl Crate {
    pub(crate) fn read(folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_string();
        let mut files = Vec::new();
        let source = folder.join("src");
        read_folder(&source, &source, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { name, files }
    }

    /// Which file uses what. Re-exported names count for the file that defines them.
    pub(crate) fn dependencies(&self) -> Dependencies {
        let by_module: HashMap<&[String], &SourceFile> =
            self.files.iter().map(|file| (&file.module[..], file)).collect();
        let mut all = Dependencies::new();
        for file in &self.files {
            let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for path in &file.uses {
                for (to, name) in resolve(&by_module, file, path, 0) {
                    if to != file.path {
                        uses.entry(to).or_default().insert(name);
                    }
                }
            }
            let uses = uses.into_iter().map(|(to, names)| (to, names.into_iter().collect()));
            all.insert(file.path.clone(), uses.collect());
        }
        all
    }
}

/// The files that define what a path means in a file, with the name that is used.
fn resolve(
    modules: &HashMap<&[String], &SourceFile>,
    file: &SourceFile,
    path: &[String],
    depth: usize,
) -> Vec<(String, String)> {
    let mut place = file.module.clone();
    let mut rest = path;
    match rest.first().map(String::as_str) {
        Some("crate") => (place, rest) = (Vec::new(), &rest[1..]),
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        // A module that was imported by name, as in `use crate::tables;` and then `tables::write`.
        Some(first) => {
            if let Some(import) = file
                .imports
                .get(first)
                .filter(|import| depth < 8 && import[..] != path[..])
            {
                let whole = [&import[..], &path[1..]].concat();
                return resolve(modules, file, &whole, depth + 1);
            }
        }
        None => return Vec::new(),
    }
    while rest.first().is_some_and(|step| step == "super") {
        place.pop();
        rest = &rest[1..];
    }
    // As far as it leads through modules that are files.
    while let Some((step, more)) = rest.split_first() {
        let mut deeper = place.clone();
        deeper.push(step.clone());
        if !modules.contains_key(&deeper[..]) {
            break;
        }
        (place, rest) = (deeper, more);
    }
    let Some(found) = modules.get(&place[..]) else {
        return Vec::new();
    };
    let Some(name) = rest.first() else {
        return Vec::new();
    };
    if found.defines.contains(name) || depth > 8 {
        return vec![(found.path.clone(), name.clone())];
    }
    if let Some(source) = found.hands_on.get(name) {
        return resolve(modules, found, source, depth + 1);
    }
    let through_all = found.hands_on_all.iter().flat_map(|source| {
        let mut path = source.clone();
        path.push(name.clone());
        resolve(modules, found, &path, depth + 1)
    });
    through_all.collect()
}

/// Groups of files that use each other.
pub(crate) fn circles(graph: &Dependencies) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from.clone()];
        while let Some(file) = next.pop() {
            for to in graph.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = graph.keys().map(|file| (file, reach(file))).collect();
    let mut found = BTreeSet::new();
    for (file, seen) in &reached {
        if seen.contains(*file) {
            let circle = seen.iter().filter(|other| reached[other].contains(*file));
            found.insert(circle.cloned().collect::<BTreeSet<_>>());
        }
    }
    found.into_iter().collect()
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            let text = std::fs::read_to_string(&path).unwrap();
            if let Some(file) = SourceFile::read(relative, &text) {
                files.push(file);
            }
        }
    }
}

impl SourceFile {
    /// `None` for files of tests alone.
    fn read(path: String, text: &str) -> Option<Self> {
        let stem = path.strip_suffix(".rs")?;
        let mut module: Vec<String> = stem.split('/').map(str::to_string).collect();
        if module.iter().any(|name| name == "tests" || name == "reference_tests") {
            return None;
        }
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        if syntax.attrs.iter().any(is_cfg_test) {
            return None;
        }
        let mut reader = Reader::default();
        for item in &syntax.items {
            reader.define(item);
            reader.visit_item(item);
        }
        let header = syntax.attrs.iter().filter_map(doc).collect::<Vec<_>>().join(" ");
        Some(Self {
            lines: text.lines().count() - reader.test_lines,
            path,
            module,
            header: header.split("  ").next().unwrap_or_default().trim().to_string(),
            functions: reader.functions,
            impls: reader.impls,
            defines: reader.defines,
            hands_on: reader.hands_on,
            hands_on_all: reader.hands_on_all,
            imports: reader.imports,
            uses: reader.uses,
        })
    }

    /// Whether methods are added to a type of this name.
    pub(crate) fn has_impl_of(&self, name: &str) -> bool {
        self.impls.contains(name)
    }

    /// The folder whose module this file is; the crate's root has the empty name.
    pub(crate) fn folder(&self) -> Option<&str> {
        match self.path.as_str() {
            "lib.rs" => Some(""),
            path => path.strip_suffix("/mod.rs"),
        }
    }
}

#[derive(Default)]
struct Reader {
    functions: Vec<(String, usize)>,
    impls: BTreeSet<String>,
    defines: BTreeSet<String>,
    hands_on: HashMap<String, Vec<String>>,
    hands_on_all: Vec<Vec<String>>,
    imports: HashMap<String, Vec<String>>,
    uses: Vec<Vec<String>>,
    test_lines: usize,
}

impl Reader {
    /// Records the name of a top-level item.
    fn define(&mut self, item: &Item) {
        let name = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Mod(item) if item.content.is_some() => &item.ident,
            Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    self.defines.insert(name.to_string());
                } else {
                    // A macro of ours that makes types names them first: `table! { pub struct Row { … } }`.
                    let text = item.mac.tokens.to_string();
                    let words: Vec<&str> = text.split_whitespace().collect();
                    for pair in words.windows(2) {
                        if ["struct", "enum", "fn"].contains(&pair[0]) {
                            self.defines.insert(pair[1].to_string());
                        }
                    }
                }
                return;
            }
            _ => return,
        };
        self.defines.insert(name.to_string());
    }

    fn function(&mut self, name: String, whole: proc_macro2::Span) {
        let lines = whole.end().line - whole.start().line + 1;
        self.functions.push((name, lines));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_cfg_test) {
            let span = item.span();
            self.test_lines += span.end().line - span.start().line + 1;
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        let handed_on = !matches!(item.vis, Visibility::Inherited);
        for (path, name) in paths {
            if !matches!(path[0].as_str(), "crate" | "self" | "super") {
                continue;
            }
            if let Some(name) = &name {
                self.imports.insert(name.clone(), path.clone());
            }
            match (handed_on, name) {
                (true, Some(name)) => {
                    self.hands_on.insert(name, path);
                }
                (true, None) => self.hands_on_all.push(path),
                (false, _) => self.uses.push(path),
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let steps: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if steps.len() > 1 {
            // `layers::Layer` means a child module as well as `self::layers::Layer`.
            self.uses.push(steps);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(
            item.sig.ident.to_string(),
            item.sig.fn_token.span.join(item.block.span()).unwrap_or(item.span()),
        );
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(
            item.sig.ident.to_string(),
            item.sig.fn_token.span.join(item.block.span()).unwrap_or(item.span()),
        );
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if item.trait_.is_none()
            && let syn::Type::Path(of) = &*item.self_ty
            && let Some(last) = of.path.segments.last()
        {
            self.impls.insert(last.ident.to_string());
        }
        visit::visit_item_impl(self, item);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test"))
}

fn doc(attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    match &literal.lit {
        syn::Lit::Str(text) if pair.path.is_ident("doc") => Some(text.value().trim().to_string()),
        _ => None,
    }
}

/// Every path of a `use`, with the name it gets here; `None` for `*`.
fn flatten(tree: &UseTree, before: &mut Vec<String>, into: &mut Vec<(Vec<String>, Option<String>)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, into);
            before.pop();
        }
        UseTree::Name(name) => {
            let mut path = before.clone();
            let name = name.ident.to_string();
            if name == "self" {
                into.push((path.clone(), path.last().cloned()));
            } else {
                path.push(name.clone());
                into.push((path, Some(name)));
            }
        }
        UseTree::Rename(rename) => {
            let mut path = before.clone();
            path.push(rename.ident.to_string());
            into.push((path, Some(rename.rename.to_string())));
        }
        UseTree::Glob(_) => into.push((before.clone(), None)),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, before, into);
            }
        }
    }
}
