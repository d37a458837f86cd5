#![allow(missing_docs, unreachable_pub, dead_code)]
use attacks::{Invalid, Setting};
use candle_core::{Result, Tensor, Var, backprop::GradStore};
use defenses::*;
use std::collections::BTreeMap;
pub struct Parameter {
    pub name: String,
    pub value: Var,
    pub weight: bool,
}
pub struct OptimizerState {
    p: Vec<Parameter>,
    m: f64,
    wd: f64,
    buf: BTreeMap<String, Tensor>,
}
impl OptimizerState {
    pub fn new(o: &Optimizer, p: Vec<Parameter>) -> Result<Self> {
        let (m, wd) = match o {
            Optimizer::Sgd {
                momentum, weight_decay, ..
            } => (*momentum, *weight_decay),
            _ => (0., 0.),
        };
        Ok(Self {
            p,
            m,
            wd,
            buf: BTreeMap::new(),
        })
    }
    pub fn step(&mut self, g: &GradStore, rate: f64, _clip: Option<f64>) -> Result<()> {
        for p in &self.p {
            let Some(g) = g.get(p.value.as_tensor()) else { continue };
            let v = p.value.as_tensor().detach();
            let g = (g.detach() + (&v * self.wd)?)?;
            let b = match self.buf.get(&p.name) {
                Some(b) => ((b * self.m)? + &g)?,
                None => g,
            };
            p.value.set(&(v - (&b * rate)?)?)?;
            self.buf.insert(p.name.clone(), b);
        }
        Ok(())
    }
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.buf.clone())
    }
    pub fn load_state(&mut self, s: &BTreeMap<String, Tensor>) -> Result<()> {
        self.buf = s.clone();
        Ok(())
    }
}
pub fn shared_recipe(_: &Setting) -> Recipe {
    Recipe {
        length: Length::Epochs(110),
        batch: 128,
        optimizer: Optimizer::Sgd {
            rate: 0.1,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            decay: Decay::All,
        },
        schedule: Schedule::Constant {},
        clip_gradient: None,
        augment: vec![],
    }
}
pub trait RecipeExt {
    fn check(&self) -> std::result::Result<(), Invalid>;
    fn rate(&self, step: u64, per: u64) -> f64;
}
impl RecipeExt for Recipe {
    fn check(&self) -> std::result::Result<(), Invalid> {
        Ok(())
    }
    fn rate(&self, step: u64, per: u64) -> f64 {
        let Optimizer::Sgd { rate, .. } = self.optimizer else {
            return 0.001;
        };
        match &self.schedule {
            Schedule::Steps { at, factor } => {
                let e = step / per + 1;
                rate * factor.powi(at.iter().filter(|a| **a <= e).count() as i32)
            }
            _ => rate,
        }
    }
}
