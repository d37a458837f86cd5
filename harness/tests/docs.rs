//! What the pages show is what is there: files as they are, output as the program prints it, rows of committed results;
//! and what they say can be written is read.
//!
//! | before a block | the block |
//! | --- | --- |
//! | `<!-- file: PATH -->` | that file |
//! | `<!-- run: rampart ARGUMENTS -->` | what the command prints |
//! | `<!-- rows: FOLDER LABEL -->` | the rows of a defense in every table of that folder, up to `<!-- end -->` |
//! | `<!-- columns: FOLDER LABEL -->` | the columns of an attack, likewise |
//! | `<!-- published: METHOD -->` | the numbers of `paper-tables/published.json` for a defense or an attack, likewise |
//!
//! `UPDATE_DOCS=1 cargo test -p harness --test docs` writes the blocks anew.

mod pages;

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use pages::{blocks, links, snippets, tables};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every page, by its path in the repository.
fn all_pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(PathBuf::from)
        .into();
    pages.extend(pages::markdown_below(&root(), Path::new("docs")));
    pages
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

fn harness(arguments: &str) -> String {
    let mut command = Command::cargo_bin("rampart").unwrap();
    let output = command.current_dir(root()).args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "rampart {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Names of all methods of a kind, `attacks` or `defenses`.
fn methods(kind: &str) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_str(&harness(&format!("ls {kind} --json"))).unwrap();
    let names = listed.as_array().unwrap().iter();
    names.map(|it| it["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn pages_show_what_is_there() {
    let mut found = 0;
    for page in all_pages() {
        let text = read(&page);
        let (fresh, blocks) = blocks::fresh(&root(), &page, &text, &harness);
        found += blocks;
        if fresh == text {
            continue;
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(root().join(&page), fresh).unwrap();
            continue;
        }
        let difference = text.lines().zip(fresh.lines()).find(|(a, b)| a != b);
        panic!(
            "{} is stale: {difference:?}; write it anew by UPDATE_DOCS=1 cargo test -p harness --test docs",
            page.display()
        );
    }
    assert!(found > 0, "no page has a block that could be checked");
}

#[test]
fn every_method_has_a_page_that_shows_its_fields() {
    for kind in ["attacks", "defenses"] {
        for name in methods(kind) {
            let page = PathBuf::from(format!("docs/methods/{kind}/{name}.md"));
            assert!(
                root().join(&page).exists(),
                "`{name}` has no page: write {}, as docs/methods/README.md says",
                page.display()
            );
            let (text, block) = (read(&page), format!("<!-- run: rampart ls {kind} {name} -->"));
            assert!(text.contains(&block), "{} lacks {block}", page.display());
        }
    }
}

#[test]
fn links_lead_to_what_is_there() {
    let mut broken = Vec::new();
    let mut found = 0;
    for page in all_pages() {
        for link in links::of(&read(&page)) {
            found += 1;
            if let Some(reason) = links::broken(&root(), &page, &link) {
                broken.push(format!("{}: {link}: {reason}", page.display()));
            }
        }
    }
    assert!(found > 50, "only {found} links");
    assert!(broken.is_empty(), "links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_index() {
    let index = ["docs/README.md", "docs/methods/README.md", "docs/results/README.md"];
    let index: Vec<PathBuf> = index.map(PathBuf::from).into();
    let mut listed = index.clone();
    for page in &index {
        listed.extend(
            links::of(&read(page))
                .iter()
                .filter_map(|link| links::target(page, link)),
        );
    }
    for page in pages::markdown_below(&root(), Path::new("docs")) {
        // Tables of a run are not pages of their own.
        if page.iter().any(|part| part == "tables") {
            continue;
        }
        assert!(
            listed.contains(&page),
            "{} is in no index, such as docs/README.md",
            page.display()
        );
    }
}

#[test]
fn what_pages_say_can_be_written_is_read() {
    let (attacks, defenses) = (methods("attacks"), methods("defenses"));
    let schema: serde_json::Value = serde_json::from_str(&harness("schema")).unwrap();
    let keys: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let folder = tempfile::tempdir().unwrap();
    let mut found = 0;
    for page in all_pages()
        .iter()
        .filter(|page| page.starts_with("docs") || page.ends_with("README.md"))
    {
        for matrix in snippets::matrices(&read(page), &keys, &attacks, &defenses) {
            found += 1;
            let file = folder.path().join("matrix.yaml");
            std::fs::write(&file, &matrix).unwrap();
            let mut command = Command::cargo_bin("rampart").unwrap();
            let output = command.arg("validate").arg(&file).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {error}\n{matrix}", page.display());
        }
    }
    assert!(found > 50, "only {found} snippets");
}

#[test]
fn rows_and_columns_are_taken_out_of_tables() {
    let text = "## White\n\n### digits, tiny\n\n| defense | FGSM | PGD-20 |\n|---|---|---|\n| ALP | 1 | 2 |\n\
                |   paper | 3 | 4 |\n| MART, best | 5 | 6 |\n\n| defense | CW |\n|---|---|\n| ALP | 7 |\n\
                |   paper | |\n| MART, best | 8 |\n\n- A note.\n";
    let parts = tables::read(text);
    let rows = tables::rows(&parts, "ALP");
    assert_eq!(rows.len(), 1);
    let (heading, grid) = &rows[0];
    assert_eq!(heading, "White: digits, tiny");
    let expected = [
        ["defense", "FGSM", "PGD-20", "CW"],
        ["ALP", "1", "2", "7"],
        ["paper", "3", "4", ""],
    ];
    assert_eq!(grid, &expected.map(|line| line.map(str::to_string).to_vec()).to_vec());
    assert_eq!(tables::rows(&parts, "MART")[0].1[1], ["MART, best", "5", "6", "8"]);
    assert!(tables::rows(&parts, "TRADES").is_empty());
    let columns = tables::columns(&parts, "CW");
    let expected = [["defense", "CW"], ["ALP", "7"], ["paper", ""], ["MART, best", "8"]];
    assert_eq!(
        columns[0].1,
        expected.map(|line| line.map(str::to_string).to_vec()).to_vec()
    );
}

/// Every command that the program lists has its help on the page of commands.
#[test]
fn no_command_lacks_its_help() {
    let output = Command::cargo_bin("rampart").unwrap().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 15 && commands.contains(&"watch"), "{commands:?}");
    let page = std::fs::read_to_string(root().join("docs/commands.md")).unwrap();
    for command in commands {
        assert!(
            page.contains(&format!("<!-- run: rampart help {command} -->")),
            "docs/commands.md says nothing of `rampart {command}`"
        );
    }
}
