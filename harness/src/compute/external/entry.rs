//! Attacks and threat models as the command line writes them.

use anyhow::Result;
use attacks::{Attack, Configured, Family, Norm, Pixels, Registry, Setting, Threat};
use plan::attack_label;
use plan::matrix::from_value;
use plan::with_suggestion;
use plan::yaml;
use serde_json::{Map, Value, json};

use crate::exit::Stop;

/// A threat model as the command line writes it: `linf:8/255`.
pub(crate) fn threat(text: &str) -> Result<Threat> {
    let mistake = |why: String| Stop::usage(format!("--threat {text}: {why}; write it as `linf:8/255` or `l2:0.5`"));
    let (norm, epsilon) = text.split_once(':').ok_or_else(|| mistake("no `:`".into()))?;
    let norm: Norm = from_value(json!(norm)).map_err(|fault| mistake(fault.message))?;
    let epsilon: Pixels = epsilon
        .parse()
        .map_err(|error: attacks::InvalidPixels| mistake(error.to_string()))?;
    let threat = Threat { norm, epsilon };
    threat.check().map_err(|invalid| mistake(invalid.message))?;
    Ok(threat)
}

/// What the literature allows on such images: 8/255 in colour, 0.3 on grey digits, under L∞.
pub(crate) fn usual_threat(family: Family) -> Threat {
    let epsilon = match family {
        Family::Mnist => Pixels::new(3, 10),
        Family::Cifar => Pixels::new(8, 255),
    };
    Threat {
        norm: Norm::Linf,
        epsilon,
    }
}

/// The setting of a data set.
pub(crate) fn setting(entry: &datasets::Entry, model: &str, threat: Option<Threat>) -> Setting {
    let family = match entry.family {
        datasets::Family::Mnist => Family::Mnist,
        datasets::Family::Cifar => Family::Cifar,
    };
    Setting {
        family,
        threat: threat.unwrap_or_else(|| usual_threat(family)),
        network: model.to_string(),
        image: entry.image,
        classes: entry.classes.len(),
    }
}

/// An attack with its label and threat model.
#[derive(Debug, Clone)]
pub(crate) struct NamedAttack {
    pub(crate) attack: Configured<dyn Attack>,
    pub(crate) label: String,
    pub(crate) threat: Threat,
}

/// An attack as the command line writes it: a name, or an entry of a matrix such as
/// `{ name: pgd, steps: 40, epsilon: 4/255 }`.
pub(crate) fn named_attack(text: &str, registry: &Registry<dyn Attack>, setting: &Setting) -> Result<NamedAttack> {
    let mistake = |at: &str, message: String| {
        let at = if at.is_empty() {
            String::new()
        } else {
            format!(" `{at}`:")
        };
        Stop::usage(format!("--attack {text}:{at} {}", with_suggestion(&message)))
    };
    let value = yaml::parse(text).map_err(|error| {
        mistake(
            "",
            format!("{}; write a name or `{{ name: pgd, steps: 20 }}`", error.message),
        )
    })?;
    let mut entry = match value {
        Value::String(name) => Map::from_iter([("name".to_string(), Value::String(name))]),
        Value::Object(entry) => entry,
        _ => return Err(mistake("", "write a name or `{ name: pgd, steps: 20 }`".into())),
    };
    let mut take = |key: &str| -> Result<Option<String>> {
        match entry.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(mistake(key, "must be text or a number".into())),
        }
    };
    let name = take("name")?.ok_or_else(|| mistake("", "missing field `name`".into()))?;
    let label = take("label")?;
    let mut threat = setting.threat;
    if let Some(epsilon) = take("epsilon")? {
        threat.epsilon = epsilon
            .parse()
            .map_err(|error: attacks::InvalidPixels| mistake("epsilon", error.to_string()))?;
        threat.check().map_err(|invalid| mistake("epsilon", invalid.message))?;
    }
    let setting = Setting {
        threat,
        ..setting.clone()
    };
    let attack = registry
        .parse(&name, Value::Object(entry), &setting)
        .map_err(|error| match error {
            attacks::ParseError::Field { field, message } => mistake(&field, message),
            unknown => mistake("", unknown.to_string()),
        })?;
    let label = label.unwrap_or_else(|| attack_label(&attack));
    Ok(NamedAttack { attack, label, threat })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> Setting {
        setting(datasets::entry("digits").unwrap(), "tiny-cnn", None)
    }

    #[test]
    fn threats_and_attacks_are_read() {
        let found = threat("linf:8/255").unwrap();
        assert_eq!((found.norm, found.epsilon.to_string()), (Norm::Linf, "8/255".into()));
        assert_eq!(threat("l2:0.5").unwrap().norm, Norm::L2);
        for text in ["8/255", "linf:x", "l3:1", "linf:2", "linf:1/0"] {
            let error = threat(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--threat {text}: ")), "{error}");
        }
        let methods = attacks::builtin();
        assert_eq!(named_attack("pgd", &methods, &digits()).unwrap().label, "PGD-40");
        let found = named_attack(
            "{ name: pgd, steps: 7, epsilon: 0.1, label: mine }",
            &methods,
            &digits(),
        )
        .unwrap();
        assert_eq!((&*found.label, found.threat.epsilon.value()), ("mine", 0.1));
        assert_eq!(found.attack.config["steps"], 7);
        let check = |text: &str, part: &str| {
            let error = named_attack(text, &methods, &digits()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check("pdg", "did you mean `pgd`?");
        check("{ name: pgd, stpes: 3 }", "did you mean `steps`?");
        check("{ name: pgd, epsilon: 3 }", "`epsilon`");
        check("[1]", "write a name");
        check("{ steps: 3 }", "missing field `name`");
        check("{", "write a name");
    }
}
