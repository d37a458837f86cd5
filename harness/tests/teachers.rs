//! Trainings that ask another network: unlabeled data, and groups of examples that are treated otherwise.

mod common;

use std::path::Path;

use common::{Place, UNLABELED, bytes, derived};
use serde_json::Value;

/// A teacher, and the treatments of the examples that it misclassifies.
const TREATED: &str = "\
name: small
dataset: { name: digits, validation: 20, limit: { train: 120, test: 40 } }
threat: { norm: linf, epsilon: 0.1 }
networks: [tiny-cnn]
recipe: { epochs: 2, batch: 32, optimizer: { name: sgd, rate: 0.05 }, schedule: { name: constant } }
teacher: { defense: { name: natural, recipe: { epochs: 2 } } }
seeds: [0, 1]
defenses:
  - { name: standard, attack: { steps: 2 } }
  - { name: standard, label: minus, attack: { steps: 2 }, treat: { examples: misclassified, how: clean } }
  - { name: standard, label: plus, attack: { steps: 2 }, treat: { examples: correct, how: kl } }
tables: [summary]
";

fn json(file: &Path) -> Value {
    serde_json::from_slice(&bytes(file)).unwrap()
}

/// What the teacher said in the first cell whose name has this part.
fn said(place: &Place, part: &str) -> Value {
    let mut cells = place.cells("small", part);
    cells.retain(|cell| cell.join("teacher.json").exists());
    json(&cells[0].join("teacher.json"))
}

fn numbers(value: &Value) -> Vec<u64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_u64().unwrap())
        .collect()
}

#[test]
fn unlabeled_examples_get_the_teachers_labels() {
    let place = Place::new(UNLABELED);
    let (plan, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let of = |name: &str| {
        plan.as_array()
            .unwrap()
            .iter()
            .find(|it| it["name"] == name)
            .unwrap()
            .clone()
    };
    let (teacher, pupil) = (
        of("digits-tiny-cnn-natural-s1000"),
        of("digits-tiny-cnn-trades-unlabeled-s0"),
    );
    assert_eq!(pupil["needs"], serde_json::json!([teacher["key"]]));
    assert_eq!(of("digits-tiny-cnn-mart-s0")["needs"], serde_json::json!([]));
    // The teacher sees 40 examples an epoch, its pupil all 100: two clean passes, a perturbed one, three in the attack.
    assert_eq!(teacher["forwards"], 2 * 40);
    assert_eq!(pupil["forwards"].as_u64().unwrap() % (2 * 100), 0);

    let (out, _) = place.expect(0, &["m.yaml"]);
    assert!(
        out.contains("5 cells computed") && out.contains("TRADES + unlabeled"),
        "{out}"
    );
    let said = said(&place, "trades");
    assert_eq!(said["teacher"], teacher["key"]);
    assert_eq!(numbers(&said["examples"]).len(), 100);
    assert!(said["misclassified"].is_null());
    place.expect(0, &["check", "runs/small"]);
    let (out, _) = place.expect(0, &["verify", "runs/small", "--cells", "all"]);
    assert!(out.contains("0 of 5 cells differ"), "{out}");
    let (out, _) = place.expect(0, &["status", "runs/small"]);
    assert!(out.contains("5 cells: 5 done"), "{out}");
}

#[test]
fn the_groups_are_those_of_the_teacher_for_every_batch_thread_and_seed() {
    let (one, other) = (Place::new(TREATED), Place::new(TREATED));
    one.expect(0, &["m.yaml", "--threads", "2", "--jobs", "3"]);
    other.expect(0, &["m.yaml", "--threads", "1", "--evaluation-batch", "7"]);
    let (minus, plus) = (said(&one, "minus"), said(&one, "plus"));
    let groups = |said: &Value| (numbers(&said["misclassified"]), numbers(&said["correct"]));
    let (misclassified, correct) = groups(&minus);
    assert_eq!((misclassified.clone(), correct.clone()), groups(&plus));
    assert!(!misclassified.is_empty() && misclassified.len() == correct.len());
    for cell in one
        .cells("small", "minus-s1")
        .iter()
        .chain(&other.cells("small", "plus-s"))
    {
        if cell.join("teacher.json").exists() {
            assert_eq!(
                groups(&json(&cell.join("teacher.json"))),
                groups(&minus),
                "{}",
                cell.display()
            );
        }
    }
    // S⁻ are the examples whose own label is another than the teacher's.
    let labels = &datasets::load("digits", &one.path(""), datasets::Verify::Yes)
        .unwrap()
        .train;
    let pairs = numbers(&minus["examples"]).into_iter().zip(numbers(&minus["classes"]));
    let wrong = pairs.filter(|(example, class)| u64::from(labels.labels()[*example as usize]) != *class);
    assert_eq!(wrong.map(|(example, _)| example).collect::<Vec<_>>(), misclassified);
    assert_eq!(derived(&one.path("runs/small")), derived(&other.path("runs/small")));
}

/// A teacher in the matrix changes the keys of those alone that ask it, so what was computed before is found again.
#[test]
fn who_asks_no_teacher_keeps_its_key() {
    let keys = |matrix: &str, name: &str| {
        let (plan, _) = Place::new(matrix).expect(0, &["plan", "m.yaml", "--json"]);
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let of = plan
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["name"].as_str().unwrap().starts_with(name));
        of.map(|it| it["key"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let treated = ", treat: { examples: misclassified, how: clean }";
    let teacher = "teacher: { defense: { name: natural, recipe: { epochs: 2 } } }\n";
    let before = TREATED.replace(teacher, "").replace(treated, "");
    let before = before.replace(", treat: { examples: correct, how: kl }", ", recipe: { epochs: 3 }");
    let before = before.replace("  - { name: standard, label: minus, attack: { steps: 2 } }\n", "");
    let standard = "digits-tiny-cnn-standard-s";
    assert_eq!(keys(&before, standard), keys(TREATED, standard));
    assert_eq!(
        keys(&before, standard).len(),
        4,
        "two trainings, each with its natural accuracy"
    );
    // Another teacher makes another training, and so do other labels, another weight and another share.
    let pupil = "digits-tiny-cnn-trades-unlabeled-s0";
    for (from, to) in [
        ("{ defense: natural }", "{ defense: natural, seed: 7 }"),
        ("{ defense: natural }", "{ defense: natural, checkpoint: best }"),
        ("labeled: 40", "labeled: 41"),
        ("weight: 0.5", "weight: 0.25"),
        ("share: 0.5", "share: 0.25"),
        ("{ weight: 0.5, share: 0.5 }", "{ weight: 0.5 }"),
    ] {
        assert_ne!(
            keys(UNLABELED, pupil),
            keys(&UNLABELED.replace(from, to), pupil),
            "{to}"
        );
    }
}

/// Images of a file of one's own are labeled by the teacher too, and the digest of the data names them.
#[test]
fn a_file_of_images_is_trained_on() {
    let matrix = UNLABELED
        .replace("labeled: 40, ", "extra: more.safetensors, ")
        .replace("share: 0.5", "share: 0.25");
    let place = Place::new(&matrix);
    place.expect(0, &["validate", "m.yaml"]);
    let (_, err) = place.expect(2, &["m.yaml"]);
    assert!(err.contains("more.safetensors") && err.contains("`extra`"), "{err}");
    std::fs::create_dir(place.path("data")).unwrap();
    let pixels: Vec<u8> = (0..30 * 64).map(|it| (it * it % 17) as u8).collect();
    let images = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![30, 1, 8, 8], &pixels).unwrap();
    let file = safetensors::serialize([("images", images)], None).unwrap();
    std::fs::write(place.path("data/more.safetensors"), &file).unwrap();
    place.expect(0, &["m.yaml"]);
    let said = said(&place, "trades");
    let examples = numbers(&said["examples"]);
    assert_eq!(examples.len(), 130, "100 labeled ones and 30 of the file");
    let official = datasets::load("digits", &place.path(""), datasets::Verify::Yes).unwrap();
    let official_length = official.train.len() as u64;
    assert!(
        examples[100..]
            .iter()
            .eq((official_length..official_length + 30).collect::<Vec<_>>().iter())
    );
    let rows = results::read_rows(&place.path("runs/small/results.parquet")).unwrap();
    assert!(
        rows.iter()
            .all(|row| row.dataset_digest.starts_with(&format!("{}+", official.digest)))
    );
    place.expect(0, &["check", "runs/small"]);
    // An epoch is as long as the labeled images are many: the file makes it no longer.
    let (plan, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let forwards = |name: &str| {
        let cell = plan.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
        cell["forwards"].as_u64().unwrap()
    };
    assert_eq!(forwards("digits-tiny-cnn-natural-s1000"), 2 * 100);
    let pupil = forwards("digits-tiny-cnn-trades-unlabeled-s0");
    // Other images are other data.
    let mut other = file;
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(place.path("data/more.safetensors"), other).unwrap();
    let (again, _) = place.expect(0, &["plan", "m.yaml", "--json"]);
    assert!(!again.contains("\"done\"") && pupil % 200 == 0, "{pupil} {again}");
}

/// Stopped in the middle, a training with a teacher goes on to the same bits.
#[test]
#[cfg(unix)]
fn a_stopped_training_goes_on_with_what_the_teacher_said() {
    let long = UNLABELED.replace("epochs: 2", "epochs: 30");
    let (whole, stopped) = (Place::new(&long), Place::new(&long));
    whole.expect(0, &["m.yaml"]);
    for _ in 0..3 {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rampart"));
        command
            .args(["m.yaml", "--checkpoint-every", "0"])
            .current_dir(stopped.path(""));
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(250));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    stopped.expect(0, &["m.yaml"]);
    assert_eq!(derived(&whole.path("runs/small")), derived(&stopped.path("runs/small")));
}

/// If a teacher cannot be trained, the trainings that need it fail as well, and so do attacks on their networks.
#[test]
fn trainings_with_a_failed_teacher_fail() {
    let place = Place::new(&UNLABELED.replace(
        "{ defense: natural }",
        "{ defense: { name: natural, recipe: { optimizer: { rate: 1.0e+30 } } } }",
    ));
    let (out, _) = place.expect(3, &["m.yaml"]);
    assert!(out.contains("2 cells computed, 0 kept from before, 3 failed"), "{out}");
    let chain = "digits-tiny-cnn-trades-unlabeled-s0 failed: digits-tiny-cnn-natural-s1000 failed: training diverged";
    assert!(out.contains(chain), "{out}");
    // The next run finds it so, and comes to an end as well.
    let (out, _) = place.expect(3, &["m.yaml"]);
    assert!(out.contains("0 cells computed, 2 kept from before, 3 failed"), "{out}");
}

/// Exit code 2, with place and remedy, for every mistake about teachers.
#[test]
fn mistakes_about_teachers_are_placed() {
    #[track_caller]
    fn mistake(base: &str, from: &str, to: &str, parts: &[&str]) {
        let matrix = base.replace(from, to);
        assert_ne!(matrix, base, "the mistake was not made");
        let place = Place::new(&matrix);
        for command in ["validate", "plan"] {
            let (_, err) = place.expect(2, &[command, "m.yaml"]);
            for part in parts {
                assert!(err.contains(part), "{command}: `{part}` is not in:\n{err}");
            }
        }
    }
    let unlabeled = |from: &str, to: &str, parts: &[&str]| mistake(UNLABELED, from, to, parts);
    let treated = |from: &str, to: &str, parts: &[&str]| mistake(TREATED, from, to, parts);
    let teacher = "teacher: { defense: natural }\n";

    unlabeled(
        "labeled: 40, ",
        "",
        &["m.yaml:7:", "`unlabeled`", "set `labeled: 1000`"],
    );
    unlabeled(
        "labeled: 40, ",
        "labeled: 100, ",
        &["m.yaml:2:", "`dataset.labeled`", "from 1 to 99"],
    );
    unlabeled("labeled: 40, ", "labeled: 0, ", &["m.yaml:2:", "`dataset.labeled`"]);
    unlabeled(teacher, "", &["`defenses[0]`", "name a `teacher`", "`teacher: none`"]);
    let alone = UNLABELED.replace(", teacher: none", "");
    mistake(
        &alone,
        teacher,
        "",
        &["m.yaml:2:", "`dataset.labeled`", "name a `teacher`"],
    );
    unlabeled(
        "weight: 0.5",
        "weight: 0",
        &["m.yaml:7:", "`unlabeled.weight`", "above 0"],
    );
    unlabeled(
        "share: 0.5",
        "share: 1",
        &["m.yaml:7:", "`unlabeled.share`", "between 0 and 1"],
    );
    unlabeled(
        "share: 0.5",
        "share: 0.01",
        &["m.yaml:7:", "`unlabeled.share`", "less than one example"],
    );
    unlabeled("share: 0.5", "shaer: 0.5", &["m.yaml:7:", "did you mean `share`?"]);
    unlabeled(
        "teacher: none",
        "teacher: none, unlabeled: { weight: 2 }",
        &["m.yaml:10:", "`defenses[1].unlabeled`", "without a teacher"],
    );
    unlabeled(
        "{ defense: natural }",
        "{ defense: { name: natural, teacher: { defense: natural } } }",
        &[
            "m.yaml:6:",
            "`teacher.defense.teacher`",
            "a teacher cannot have a teacher",
        ],
    );
    unlabeled(
        "{ defense: natural }",
        "{ defense: naturla }",
        &["m.yaml:6:", "did you mean `natural`?"],
    );
    unlabeled(
        "{ defense: natural }",
        "{ defense: natural, sede: 3 }",
        &["m.yaml:6:", "did you mean `seed`?"],
    );
    unlabeled(
        "{ defense: natural }",
        "{ defense: natural, network: tiny-cn }",
        &["m.yaml:6:", "`teacher.network`", "did you mean `tiny-cnn`?"],
    );

    treated("teacher: {", "teacher: none\nx: {", &["`x`"]);
    let without = TREATED.replace("teacher: { defense: { name: natural, recipe: { epochs: 2 } } }\n", "");
    mistake(
        &without,
        "seeds: [0, 1]\n",
        "",
        &["m.yaml:8:", "`defenses[1]`", "name a `teacher`"],
    );
    treated(
        "examples: misclassified",
        "examples: unlabeled",
        &["m.yaml:10:", "`defenses[1]`", "set `labeled: 1000`"],
    );
    treated("how: clean", "how: cleen", &["m.yaml:10:", "did you mean `clean`?"]);
    treated(
        "how: clean",
        "how: clean, lambda: 3",
        &["m.yaml:10:", "`defenses[1].treat.lambda`"],
    );
    treated(
        "- { name: standard, attack: { steps: 2 } }",
        "- { name: standard, attack: { steps: 2 }, teacher: { defense: natural } }",
        &["m.yaml:9:", "`defenses[0].teacher`", "does not use a teacher"],
    );
    let untreated = TREATED.replace(
        ", treat: { examples: misclassified, how: clean }",
        ", recipe: { epochs: 4 }",
    );
    mistake(
        &untreated,
        ", treat: { examples: correct, how: kl }",
        ", recipe: { epochs: 3 }",
        &["m.yaml:6:", "`teacher`", "no defense uses this teacher"],
    );
}

/// The teacher misclassifies nothing, so there is nothing to treat, and nothing is reported as if there were.
#[test]
fn a_teacher_without_mistakes_treats_nobody() {
    let place = Place::new(
        &TREATED
            .replace("{ epochs: 2 }", "{ epochs: 30 }")
            .replace("[0, 1]", "[0]"),
    );
    let (out, _) = place.expect(3, &["m.yaml"]);
    assert!(out.contains("misclassifies 0 of its 100 training examples"), "{out}");
}
