//! Defaults of the literature's protocols, and the checks that all attacks share.

use crate::{Family, Invalid, Norm, Pixels, Setting, Start, Threat};

impl Setting {
    /// Steps of a test attack: 20 on colour images, 40 on digits.
    pub fn test_steps(&self) -> u64 {
        match self.family {
            Family::Cifar => 20,
            Family::Mnist => 40,
        }
    }

    /// Steps of the attack inside a training step: 40 on digits at a radius of 0.3, else 10.
    pub fn training_steps(&self) -> u64 {
        let wide = self.family == Family::Mnist && self.threat.norm == Norm::Linf;
        if wide && self.threat.epsilon == Pixels::new(3, 10) {
            40
        } else {
            10
        }
    }

    /// The step size of an attack of that many steps. L∞: ε/4 up to 10 steps (ε/steps below 4), else
    /// ε/10; on digits ε/30 from 40 steps on, 0.01 at the usual 0.3. L2: 2.5·ε/steps.
    pub fn step_size(&self, steps: u64) -> Result<Pixels, Invalid> {
        let (numerator, denominator) = match (self.threat.norm, self.family) {
            (Norm::L2, _) => (5, 2 * steps.max(1)),
            (Norm::Linf, _) if steps <= 10 => (1, steps.clamp(1, 4)),
            (Norm::Linf, Family::Mnist) if steps >= 40 => (1, 30),
            (Norm::Linf, _) => (1, 10),
        };
        self.threat
            .epsilon
            .checked_times(numerator, denominator)
            .ok_or_else(|| {
                let message = format!(
                    "no exact default follows from a radius of {}; write one",
                    self.threat.epsilon
                );
                Invalid::new("step_size", message)
            })
    }
}

impl Threat {
    /// Refuses a radius larger than any possible change of an image.
    pub fn check(&self) -> Result<(), Invalid> {
        let epsilon = self.epsilon.value();
        if self.norm == Norm::L2 || epsilon <= 1.0 {
            return Ok(());
        }
        let hint = if epsilon <= 255.0 {
            format!("; did you mean {}/255?", self.epsilon)
        } else {
            String::new()
        };
        let message = format!("epsilon is {}, but pixels are in [0, 1]{hint}", self.epsilon);
        Err(Invalid::new("epsilon", message))
    }
}

impl Start {
    /// Refuses noise without spread.
    pub fn check(&self, setting: &Setting) -> Result<(), Invalid> {
        match self {
            Self::Gaussian { sigma } if *sigma == Pixels::ZERO && setting.threat.epsilon != Pixels::ZERO => Err(
                Invalid::new("start.gaussian.sigma", "sigma is 0; write `start: none` for no noise"),
            ),
            _ => Ok(()),
        }
    }
}

/// Refuses 0.
pub fn positive(field: &str, value: u64) -> Result<(), Invalid> {
    if value > 0 {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{field} is 0; it must be at least 1")))
}

/// The largest whole number in a method's configuration. Products of such numbers, and what they cost, stay far below
/// the largest number that a computer counts with.
pub const MOST: u64 = 100_000;

/// Refuses a whole number above `most` anywhere in a configuration, whatever its field is called.
///
/// # Errors
/// At the first such number.
pub fn check_bounds(config: &serde_json::Value, most: u64) -> Result<(), Invalid> {
    use serde_json::Value;
    let within = |key: &str, value: &Value| {
        check_bounds(value, most).map_err(|invalid| match invalid.field.as_str() {
            "" => Invalid::new(key, format!("{key} is {}", invalid.message)),
            _ => invalid.within(key),
        })
    };
    match config {
        Value::Number(number) => match number.as_u64() {
            Some(number) if number > most => Err(Invalid::new("", format!("{number}; it must be at most {most}"))),
            _ => Ok(()),
        },
        Value::Array(items) => items.iter().try_for_each(|item| check_bounds(item, most)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| within(key, value)),
        _ => Ok(()),
    }
}

/// Refuses steps that go nowhere, unless the ball is a point.
pub fn check_step_size(step_size: Option<Pixels>, setting: &Setting) -> Result<(), Invalid> {
    if step_size == Some(Pixels::ZERO) && setting.threat.epsilon != Pixels::ZERO {
        let quarter = setting
            .step_size(10)
            .map_or(String::new(), |step| format!(", such as {step}"));
        return Err(Invalid::new(
            "step_size",
            format!("step_size is 0; it must be a length{quarter}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::setting;

    #[test]
    fn defaults_are_those_of_the_literature() {
        let check = |family, norm, steps, expected: &str| {
            let step_size = setting(family, norm).step_size(steps).unwrap();
            assert_eq!(step_size.to_string(), expected, "{family:?} {norm} {steps}");
        };
        check(Family::Cifar, Norm::Linf, 20, "0.8/255");
        check(Family::Cifar, Norm::Linf, 10, "2/255");
        check(Family::Cifar, Norm::Linf, 1, "8/255");
        check(Family::Mnist, Norm::Linf, 40, "0.01");
        check(Family::Cifar, Norm::L2, 10, "0.125");
    }

    #[test]
    fn a_radius_in_grey_levels_is_a_slip() {
        let threat = |norm, epsilon: &str| Threat {
            norm,
            epsilon: epsilon.parse().unwrap(),
        };
        let invalid = threat(Norm::Linf, "8").check().unwrap_err();
        assert_eq!(invalid.field, "epsilon");
        assert!(invalid.message.ends_with("did you mean 8/255?"), "{invalid}");
        assert!(threat(Norm::Linf, "1").check().is_ok());
        assert!(threat(Norm::L2, "8").check().is_ok());
    }
}
