//! The attacks of a comparison, each at each of its radii.

use attacks::{Attack, Configured, Pixels, Setting, Threat};
use serde_json::{Map, Value, json};

use super::scope::{ATTACK_KEYS, Checked, Scope};
use crate::label::attack_label;
use crate::matrix::DatasetEntry;

/// A white-box or transferred attack with what the matrix says about it.
#[derive(Clone)]
pub(super) struct ResolvedAttack {
    /// Its entry in the matrix, such as `attacks[1]`.
    pub(super) field: String,
    pub(super) attack: Configured<dyn Attack>,
    pub(super) label: String,
    pub(super) threat: Threat,
    /// The cut of the data set whose test images are attacked.
    pub(super) dataset: DatasetEntry,
}

impl ResolvedAttack {
    /// Whether both do the same to the same images.
    fn is_same_as(&self, other: &Self) -> bool {
        self.attack.name == other.attack.name
            && self.attack.config == other.attack.config
            && self.threat == other.threat
            && self.dataset == other.dataset
    }
}

impl Scope<'_> {
    /// The white-box attacks, clean images first, and the transferred ones.
    pub(super) fn attacks(&self, setting: &Setting) -> Checked<(Vec<ResolvedAttack>, Vec<ResolvedAttack>)> {
        let natural = self
            .methods
            .attacks
            .parse("natural", json!({}), setting)
            .expect("a built-in attack");
        let mut white_box = vec![ResolvedAttack {
            field: "attacks".into(),
            attack: natural,
            label: "Natural".into(),
            threat: setting.threat,
            dataset: self.block.dataset.clone(),
        }];
        let listed = self.all_of("attacks", &self.block.attacks, setting);
        let transferred = match &self.block.transfer {
            Some(transfer) => self.all_of("transfer.attacks", &transfer.attacks, setting),
            None => Ok(Vec::new()),
        };
        white_box.extend(listed?);
        let transferred = transferred?;
        self.check_apart(&white_box)?;
        self.check_apart(&transferred)?;
        Ok((white_box, transferred))
    }

    /// Every attack of a list. Each of its entries is looked at, whatever is wrong with another.
    fn all_of(&self, list: &str, entries: &[Map<String, Value>], setting: &Setting) -> Checked<Vec<ResolvedAttack>> {
        let entries = entries.iter().enumerate();
        let attacks: Vec<_> = entries
            .map(|(i, entry)| self.attack(&format!("{list}[{i}]"), entry, setting))
            .collect();
        let attacks: Vec<Vec<ResolvedAttack>> = attacks.into_iter().collect::<Checked<_>>()?;
        Ok(attacks.into_iter().flatten().collect())
    }

    /// Fails where two attacks have one label, or are one attack.
    fn check_apart(&self, attacks: &[ResolvedAttack]) -> Checked<()> {
        for (i, attack) in attacks.iter().enumerate() {
            let before = &attacks[..i];
            if before.iter().any(|other| other.label == attack.label) {
                let message = format!("two attacks are called `{}`; give one another `label`", attack.label);
                return Err(self.error(&attack.field, message));
            }
            if let Some(other) = before.iter().find(|other| other.is_same_as(attack)) {
                let message = format!(
                    "`{}` is the same attack as `{}`, with the same fields; leave one of them out",
                    attack.label, other.label
                );
                return Err(self.error(&attack.field, message));
            }
        }
        Ok(())
    }

    /// An attack, at each of its radii.
    fn attack(&self, field: &str, entry: &Map<String, Value>, setting: &Setting) -> Checked<Vec<ResolvedAttack>> {
        let mut entry = entry.clone();
        let radii = self.radii(field, &mut entry, setting);
        let label = self.take::<String>(field, &mut entry, "label");
        let dataset = self.cut(field, &mut entry);
        let (radii, many) = match radii {
            Ok(radii) => radii,
            // The rest of the entry is looked at all the same.
            Err(noted) => {
                let _ = self.method(field, entry, &self.methods.attacks, setting, ATTACK_KEYS);
                return Err(noted);
            }
        };
        let mut attacks = Vec::new();
        for epsilon in radii {
            let threat = Threat {
                epsilon,
                ..setting.threat
            };
            let setting = Setting {
                threat,
                ..setting.clone()
            };
            let attack = self.method(field, entry.clone(), &self.methods.attacks, &setting, ATTACK_KEYS)?;
            let mut label = label.clone()?.unwrap_or_else(|| attack_label(&attack));
            if many {
                label += &format!(" @ {epsilon}");
            }
            attacks.push(ResolvedAttack {
                field: field.to_string(),
                attack,
                label,
                threat,
                dataset: dataset.clone()?,
            });
        }
        Ok(attacks)
    }

    /// The radii of an attack, and whether it has a list of them.
    fn radii(&self, field: &str, entry: &mut Map<String, Value>, setting: &Setting) -> Checked<(Vec<Pixels>, bool)> {
        let many = entry.get("epsilon").is_some_and(Value::is_array);
        let radii = if many {
            self.take::<Vec<Pixels>>(field, entry, "epsilon")?
        } else {
            self.take(field, entry, "epsilon")?.map(|radius| vec![radius])
        };
        let radii = radii.unwrap_or_else(|| vec![setting.threat.epsilon]);
        if radii.is_empty() {
            return Err(self.error(&format!("{field}.epsilon"), "an empty list: nothing would run"));
        }
        for (i, &epsilon) in radii.iter().enumerate() {
            let place = if many {
                format!("{field}.epsilon[{i}]")
            } else {
                format!("{field}.epsilon")
            };
            let threat = Threat {
                epsilon,
                ..setting.threat
            };
            threat.check().map_err(|invalid| self.error(&place, invalid.message))?;
            if radii[..i].contains(&epsilon) {
                return Err(self.error(&place, format!("{epsilon} is listed twice; leave one of them out")));
            }
        }
        Ok((radii, many))
    }

    /// The block's cut of its data set, with an attack's own `limit`.
    fn cut(&self, field: &str, entry: &mut Map<String, Value>) -> Checked<DatasetEntry> {
        let mut dataset = self.block.dataset.clone();
        match self.take::<usize>(field, entry, "limit")? {
            Some(0) => return Err(self.error(&format!("{field}.limit"), "0 images: nothing would run")),
            Some(limit) => dataset.limit.test = Some(dataset.limit.test.map_or(limit, |most| most.min(limit))),
            None => {}
        }
        Ok(dataset)
    }
}
