//! The page that `rampart report` writes, looked at in a browser where there is one.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::{Place, SMALL, bytes};

/// What a browser makes of a page, after `script` ran in it, in a block of its own.
fn opened(page: &Path, script: &str) -> Option<String> {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())?;
    let html = std::fs::read_to_string(page).unwrap();
    let with_script = page.with_file_name("opened.html");
    std::fs::write(
        &with_script,
        html.replace("</body>", &format!("<script>{{{script}}}</script></body>")),
    )
    .unwrap();
    let profile = tempfile::tempdir().unwrap();
    let open = || {
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--virtual-time-budget=10000", "--dump-dom"])
            .arg(format!("file://{}", with_script.display()))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Images are decoded in real time, of which the browser's clock knows nothing: on a busy machine it may end before
    // the script has said anything.
    let said = |dom: &String| dom.contains("<title>[");
    let mut tries = (0..5).map(|_| open());
    let first = tries.next()?;
    if said(&first) {
        return Some(first);
    }
    Some(tries.find(said).unwrap_or(first))
}

#[test]
fn a_run_is_one_page_that_sorts_its_tables() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let (said, _) = place.expect(0, &["report", "runs/small"]);
    assert_eq!(said, "runs/small/report.html\n");
    let page = place.path("runs/small/report.html");
    let html = std::fs::read_to_string(&page).unwrap();
    for expected in [
        "White-box robustness",
        "PGD-3",
        "Standard",
        "BLAKE3",
        "defenses:",
        "commit",
        "Invocations",
        "m.yaml",
    ] {
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
        const state = document.getElementById('state');
        search.value = ''; state.value = 'failed'; state.dispatchEvent(new Event('change'));
        const shown = document.getElementById('shown').textContent;
        // Every image is one, in a row for each defense and a column for each image.
        const images = [...document.querySelectorAll('.images img')];
        const drawn = Promise.all(images.map(it => it.decode().then(() => it.naturalWidth === 8, () => false)));
        const gallery = document.querySelector('.images');
        const shape = [gallery.tBodies[0].rows.length, gallery.tHead.rows[0].cells.length];
        const unnamed = [...document.querySelectorAll('img')].filter(it => !it.alt).length;
        const ids = [...document.querySelectorAll('[id]')].map(it => it.id);
        const lost = [...document.querySelectorAll('a[href^=\"#\"]')].filter(it => !document.getElementById(it.hash.slice(1))).length;
        const wide = document.documentElement.scrollWidth <= window.innerWidth;
        const sort = table.tHead.rows[0].cells[1].getAttribute('aria-sort');
        const twice = ids.length - new Set(ids).size;
        drawn.then(drawn => document.title = JSON.stringify([sorted, down.length, sort, left, wide, shown,
            drawn.length > 0 && drawn.every(Boolean), shape, unnamed, twice, lost]));";
    match opened(&page, script) {
        Some(dom) => assert!(
            dom.contains("<title>[true,2,\"ascending\",1,true,\"0 of 8 evaluations\",true,[2,5],0,0,0]</title>"),
            "{}",
            dom.lines().find(|line| line.contains("<title>")).unwrap_or_default()
        ),
        None => eprintln!("no browser here: the page was not opened"),
    }
    place.expect(2, &["report", "runs/nothing"]);
}

/// From a number to its panel and back, a legend that highlights, files that are inside the page, counts that agree, text that
/// can be read on a desktop and a phone, and seeds of many digits in their order.
#[test]
fn a_number_leads_to_everything_behind_it() {
    let seeds = "seeds: [9007199254740993, 9007199254740992, 7]";
    let place = Place::new(&format!("{SMALL}{seeds}\n"));
    place.expect(0, &["m.yaml"]);
    place.expect(0, &["report", "runs/small"]);
    let page = place.path("runs/small/report.html");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("9007199254740993") && html.contains("under the strongest attack, "));
    // Without JavaScript a number is a link to its panel all the same; the panel's links lead to files that are there.
    let folder = page.parent().unwrap();
    let unescaped = html.replace("&#x2f;", "/");
    let links: Vec<&str> = unescaped
        .split("href=\"cells/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() > 20);
    for link in links {
        assert!(folder.join("cells").join(link).is_file(), "{link}");
    }
    let table = std::fs::read_to_string(folder.join("tables/input-white-box.tex")).unwrap();
    assert!(table.starts_with("% For \\input in a paper.") && !table.contains("documentclass"));

    let script = "
        const number = document.querySelector('table.sortable a.number');
        const seen = element => getComputedStyle(element).display !== 'none';
        const panel = document.getElementById(number.hash.slice(1));
        const before = seen(panel);
        number.click();
        const after = () => new Promise(done => setTimeout(done, 50));
        const saved = name => document.querySelector(`a[download='${name}']`).href;
        const results = async () => {
            await after();
            const opened = seen(panel) && document.activeElement === panel;
            const counts = [...panel.querySelectorAll('.classes small')].map(it => it.textContent.split(' of ').map(Number));
            const right = counts.reduce((sum, it) => sum + it[0], 0);
            const seeds = [...panel.querySelectorAll('.seed small')].map(it => Number(it.textContent.split(' ')[0]));
            const agree = right === seeds.reduce((sum, it) => sum + it, 0) && seeds.length === 3;
            document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
            await after();
            const closed = !seen(panel) && document.activeElement === number;
            const button = document.querySelector('#curves .legend button[data-curve=\"1\"]');
            const figure = button.closest('figure');
            const lit = () => [...figure.querySelectorAll('.curve.on')].every(it => it.classList.contains('k1')) && figure.classList.contains('lit');
            button.focus(); const focused = lit();
            button.blur(); const left = figure.classList.contains('lit');
            button.click(); button.blur(); const clicked = lit();
            const size = text => {
                const svg = text.ownerSVGElement;
                return parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
            };
            const readable = [...document.querySelectorAll('#curves svg text')].every(it => size(it) >= 12);
            const csv = atob(saved('white-box.csv').split(',')[1]).startsWith('table,block,row');
            const svg = atob(saved(figure.id.slice('figure-'.length) + '.svg').split(',')[1]).startsWith('<svg');
            const list = document.getElementById('cell-list');
            const at = [...list.tHead.rows[0].cells].findIndex(it => it.textContent.trim() === 'seed');
            list.tHead.rows[0].cells[at].querySelector('button').click();
            const order = [...list.tBodies[0].rows].map(row => row.cells[at].dataset.value);
            const sorted = order.join() === [...order].sort((a, b) => BigInt(a) < BigInt(b) ? -1 : BigInt(a) > BigInt(b) ? 1 : 0).join();
            const tiles = [...document.querySelectorAll('.tiles b')].map(it => it.textContent);
            const flagged = document.querySelectorAll('#cell-list [data-flagged]').length;
            const count = document.getElementById('shown').textContent.split(' ')[0];
            const tallies = tiles[1] === `${count} of ${count}` && tiles[4] === String(flagged);
            document.title = JSON.stringify([before, opened, agree, closed, focused, left, clicked, readable, csv, svg, sorted, tallies]);
        };
        results().catch(error => document.title = '[' + error);";
    match opened(&page, script) {
        Some(dom) => assert!(
            dom.contains("<title>[false,true,true,true,true,false,true,true,true,true,true,true]</title>"),
            "{}",
            dom.lines().find(|line| line.contains("<title>")).unwrap_or_default()
        ),
        None => eprintln!("no browser here: the page was not opened"),
    }
    // Elsewhere, there are no files beside it.
    place.expect(0, &["report", "runs/small", "--out", "elsewhere.html"]);
    let apart = std::fs::read_to_string(place.path("elsewhere.html")).unwrap();
    assert!(apart.contains("status.json") && !apart.replace("&#x2f;", "/").contains("href=\"cells/"));
}

/// What evaluations kept for the page is what `verify-examples` accepts, and a run without it has a page all the same.
#[test]
fn images_are_those_of_the_evaluation() {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let cell = place.cells("small", "standard-s0-best-pgd-3").remove(0);
    let trained = place.cells("small", "-digits-tiny-cnn-standard-s0").into_iter();
    let network = trained
        .map(|it| it.join("best.safetensors"))
        .find(|it| it.exists())
        .unwrap();
    let examples = cell.join("examples.safetensors");
    let (out, _) = place.expect(
        0,
        &[
            "verify-examples",
            examples.to_str().unwrap(),
            "--checkpoint",
            network.to_str().unwrap(),
            "--model",
            "tiny-cnn",
            "--dataset",
            "digits",
        ],
    );
    assert!(
        out.contains("examples: 4 from") && out.contains("the file's own count is the same"),
        "{out}"
    );
    assert!(
        place.cells("small", "natural-s0-best-natural")[0]
            .join("examples.safetensors")
            .metadata()
            .is_err()
    );

    // A byte of it that changed is named.
    let good = bytes(&examples);
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    std::fs::write(&examples, &bad).unwrap();
    let (_, err) = place.expect(1, &["report", "runs/small"]);
    assert!(
        err.contains("examples.safetensors has changed since it was written"),
        "{err}"
    );
    std::fs::write(&examples, &good).unwrap();

    // As a program left it that kept no images.
    for cell in place.cells("small", "-best-") {
        let _ = std::fs::remove_file(cell.join("examples.safetensors"));
    }
    place.expect(0, &["report", "runs/small", "--out", "old.html"]);
    let html = String::from_utf8(bytes(&place.path("old.html"))).unwrap();
    assert!(!html.contains("id=\"examples\"") && html.contains("id=\"cells\""));
}

/// A page that stays small however much was run, in a time that nobody minds.
#[test]
fn five_hundred_cells_are_one_small_page() {
    let attacks: String = (1..25)
        .map(|steps| format!("  - {{ name: pgd, steps: {steps}, step_size: 0.02 }}\n"))
        .collect();
    let place = Place::new(&format!(
        "name: many\ndataset: {{ name: digits, validation: 100 }}\nthreat: {{ norm: linf, epsilon: 0.2 }}\n\
         networks: [tiny-cnn]\nseeds: [0, 1, 2, 3, 4]\nrecipe: {{ epochs: 1 }}\n\
         defenses: [natural, standard, trades, mart]\nattacks:\n{attacks}tables: [white-box, summary]\n"
    ));
    place.run(&["m.yaml", "--gather"]);
    let (plan, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    let plan: Vec<serde_json::Value> = serde_json::from_str(&plan).unwrap();
    let root = place.path("runs/many");
    let mut folders = Vec::new();
    for (at, cell) in plan.iter().enumerate() {
        let (key, name) = (cell["key"].as_str().unwrap(), cell["name"].as_str().unwrap());
        let folder = root.join("cells").join(format!("{}-{name}", &key[..12]));
        std::fs::create_dir_all(&folder).unwrap();
        if cell["kind"] == "train" {
            let epochs = (1..=30).map(|epoch| {
                let robust = f64::from(epoch) / 40.0;
                let selected = format!("{{\"natural\":0.9,\"robust\":{robust}}}");
                format!("{{\"epoch\":{epoch},\"loss\":1.0,\"rate\":0.1,\"selected\":{selected}}}\n")
            });
            std::fs::write(folder.join("history.jsonl"), epochs.collect::<String>()).unwrap();
        } else {
            fake(&folder, key, name, at as u64);
        }
        folders.push(folder);
    }
    assert_eq!(folders.len(), 20 + 500);
    results::combine(&root, &folders, results::PerExample::Skip).unwrap();
    let clock = Instant::now();
    place.expect(0, &["report", "runs/many"]);
    let seconds = clock.elapsed().as_secs_f64();
    let html = String::from_utf8(bytes(&root.join("report.html"))).unwrap();
    eprintln!("500 cells: {seconds:.2} s, {:.2} MB", html.len() as f64 / 1e6);
    assert_eq!(html.matches("data-state=\"done\"").count(), 500);
    assert!(html.matches("<img").count() > 100);
    assert!(html.len() < 5_000_000, "{}", html.len());
    // Two seconds where nothing else is at work; a machine that tests many things at once takes longer.
    assert!(seconds < 30.0, "{seconds}");
}

/// An evaluation as one leaves it that saw images of CIFAR-10's size, with noise that no packing makes smaller.
fn fake(folder: &Path, key: &str, name: &str, number: u64) {
    let words: Vec<&str> = name.split('-').collect();
    let (defense, seed) = (words[3], words[4].trim_start_matches('s'));
    let attack = match words.get(6..) {
        Some(["pgd", steps]) => format!("PGD-{steps}"),
        _ => "Natural".into(),
    };
    let white_box = attack != "Natural";
    let row = results::Row {
        cell: key.to_string(),
        run: "many".into(),
        dataset: "digits".into(),
        network: "tiny-cnn".into(),
        defense: defense[..1].to_uppercase() + &defense[1..],
        seed: seed.parse().unwrap(),
        attack,
        kind: if white_box {
            results::Kind::WhiteBox
        } else {
            results::Kind::Natural
        },
        ..results::Row::default()
    };
    let row = row.with_count(500, 300 - number % 50);
    let outcomes = (0..500u64).map(|example| results::Outcome {
        cell: key.to_string(),
        example,
        label: (example % 10) as u32,
        predicted_clean: Some((example % 10) as u32),
        predicted: ((example + number) % 10) as u32,
        correct: number.is_multiple_of(10),
        delta: 0.1,
        queries: None,
        queries_until_success: None,
    });
    results::write_cell(folder, &[row], &outcomes.collect::<Vec<_>>(), &[]).unwrap();
    let mut marks = serde_json::Map::new();
    if white_box {
        let file = folder.join("examples.safetensors");
        std::fs::write(&file, images(number)).unwrap();
        let bytes = bytes(&file);
        let mark = serde_json::json!({ "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str() });
        marks.insert("examples.safetensors".into(), mark);
    }
    let status = serde_json::json!({ "key": key, "made_by": "me", "failed": null, "files": marks });
    let text = serde_json::to_string_pretty(&status).unwrap();
    let body = text.strip_suffix("\n}").unwrap();
    let seal = blake3::hash(body.as_bytes()).to_hex();
    std::fs::write(
        folder.join("status.json"),
        format!("{body},\n  \"blake3\": \"{seal}\"\n}}\n"),
    )
    .unwrap();
}

fn images(number: u64) -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView};

    let pixel = |i: u64, salt: u64| {
        let hash = blake3::hash(&[i.to_le_bytes(), salt.to_le_bytes()].concat());
        f32::from(hash.as_bytes()[0]) / 255.0
    };
    let clean: Vec<f32> = (0..4 * 3 * 32 * 32).map(|i| 0.1 + 0.8 * pixel(i, 0)).collect();
    let change = |i: usize| if pixel(i as u64, 1 + number) < 0.5 { -0.03 } else { 0.03 };
    let attacked = clean.iter().enumerate().map(|(i, it)| it + change(i));
    let floats = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let integers = |from: i64| (from..from + 4).flat_map(i64::to_le_bytes).collect::<Vec<u8>>();
    let (clean, attacked) = (floats(&mut clean.iter().copied()), floats(&mut attacked.into_iter()));
    let (labels, ids) = (integers(0), integers(0));
    let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let parts = [
        ("adversarial", view(Dtype::F32, &[4, 3, 32, 32], &attacked)),
        ("clean", view(Dtype::F32, &[4, 3, 32, 32], &clean)),
        ("ids", view(Dtype::I64, &[4], &ids)),
        ("labels", view(Dtype::I64, &[4], &labels)),
    ];
    safetensors::serialize(parts, None).unwrap()
}
