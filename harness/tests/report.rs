//! The page that `harness report` writes, looked at in a browser where there is one.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Place, SMALL};

/// What a browser makes of a page, after `script` ran in it.
fn opened(page: &Path, script: &str) -> Option<String> {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())?;
    let html = std::fs::read_to_string(page).unwrap();
    let with_script = page.with_file_name("opened.html");
    std::fs::write(
        &with_script,
        html.replace("</body>", &format!("<script>{script}</script></body>")),
    )
    .unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("file://{}", with_script.display()))
        .output()
        .unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_run_is_one_page_that_sorts_its_tables() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let (said, _) = place.expect(0, &["report", "runs/small"]);
    assert_eq!(said, "runs/small/report.html\n");
    let page = place.path("runs/small/report.html");
    let html = std::fs::read_to_string(&page).unwrap();
    for expected in ["White-box robustness", "PGD-3", "Standard", "BLAKE3", "defenses:"] {
        assert!(html.contains(expected), "{expected}");
    }
    let outside = ["http:", "https:", "src=\"//", "@import"].map(|it| html.matches(it).count());
    // The name space of SVG is no address.
    assert_eq!(outside[0], html.matches("http://www.w3.org/2000/svg").count());
    assert_eq!(outside[1..], [0, 0, 0]);

    // Sort the first table by its second column, both ways; then look for one word among the cells.
    let script = "
        const table = document.querySelector('table.sortable');
        const button = table.tHead.rows[0].cells[1].querySelector('button');
        const column = () => [...table.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value));
        button.click(); const down = column();
        button.click(); const up = column();
        const sorted = down.every((it, i) => i === 0 || down[i - 1] >= it) && up.every((it, i) => i === 0 || up[i - 1] <= it);
        const search = document.getElementById('filter');
        search.value = 'standard pgd'; search.dispatchEvent(new Event('input'));
        const left = [...document.querySelectorAll('#cell-list tbody tr')].filter(row => !row.hidden).length;
        document.title = JSON.stringify([sorted, down.length, table.tHead.rows[0].cells[1].getAttribute('aria-sort'), left,
            document.documentElement.scrollWidth <= window.innerWidth]);";
    match opened(&page, script) {
        Some(dom) => assert!(
            dom.contains("<title>[true,2,\"ascending\",1,true]</title>"),
            "{}",
            dom.lines().find(|line| line.contains("<title>")).unwrap_or_default()
        ),
        None => eprintln!("no browser here: the page was not opened"),
    }
    place.expect(2, &["report", "runs/nothing"]);
}
