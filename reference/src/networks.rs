//! The networks of the vectors: names, parameters by their closed formula, images.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::Case;

/// The name by which `models` builds the network of a case, if the network has one.
pub fn name(case: &Case) -> Option<String> {
    let arch = &case.meta["arch"];
    let size = || format!("{}-{}", arch["depth"], arch["widen"]);
    match arch["arch"].as_str()? {
        "smallcnn" => Some("small-cnn".to_string()),
        "lenet5madry" => Some("lenet5".to_string()),
        "resnet18" => Some("resnet18".to_string()),
        "wrn" => Some(format!("wrn-{}", size())),
        "mma_wrn" => Some(format!("mma-wrn-{}", size())),
        _ => None,
    }
}

/// The number of classes; 10 unless the case says otherwise.
pub fn classes(case: &Case) -> usize {
    case.meta["arch"]["classes"]
        .as_u64()
        .map_or(10, |classes| classes as usize)
}

/// Channels, height and width of its images.
pub fn image(case: &Case) -> [usize; 3] {
    let image = sizes(&case.meta["arch"]["shape"]);
    [image[0], image[1], image[2]]
}

/// The state dictionary, with the numbers of the formula.
pub fn state(case: &Case) -> BTreeMap<String, Tensor> {
    let entries = entries(case).into_iter().enumerate();
    let tensors = entries.map(|(j, (name, shape, role))| {
        let values = values(&case.meta["formula"], j, &shape, &role);
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    });
    tensors.collect()
}

/// Name, shape and role of every entry, in order.
pub fn entries(case: &Case) -> Vec<(String, Vec<usize>, String)> {
    let list = case.meta["state_dict"].as_array().expect("state_dict");
    let text = |value: &Value| value.as_str().unwrap().to_string();
    list.iter()
        .map(|entry| (text(&entry[0]), sizes(&entry[1]), text(&entry[2])))
        .collect()
}

fn sizes(list: &Value) -> Vec<usize> {
    let list = list.as_array().expect("a list of sizes");
    list.iter().map(|size| size.as_u64().unwrap() as usize).collect()
}

/// f(i, j) of the reference's README, scaled for the role, rounded to f32.
fn values(formula: &Value, j: usize, shape: &[usize], role: &str) -> Vec<f32> {
    let number = |name: &str| formula[name].as_f64().unwrap();
    let f: Box<dyn Fn(usize) -> f64> = match formula["kind"].as_str().unwrap() {
        "sin" => {
            let (a, b, c) = (number("a"), number("b"), number("c"));
            Box::new(move |i| (a * i as f64 + b * j as f64 + c).sin())
        }
        "hash" => {
            let seed = formula["seed"].as_u64().unwrap();
            Box::new(move |i| {
                let h = splitmix64((i as u64).wrapping_add((j as u64) << 40).wrapping_add(seed));
                2.0 * ((h >> 11) as f64 / (1u64 << 53) as f64) - 1.0
            })
        }
        other => panic!("unknown formula {other}"),
    };
    let fan_in: usize = shape.iter().skip(1).product();
    let scaled = |i: usize| match role {
        "weight" => (2.0 / fan_in as f64).sqrt() * f(i),
        "bn_weight" => 1.0 + 0.1 * f(i),
        "bias" | "running_mean" => 0.05 * f(i),
        "running_var" => 1.0 + 0.2 * f(i),
        other => panic!("unknown role {other}"),
    };
    (0..shape.iter().product()).map(|i| scaled(i) as f32).collect()
}

fn splitmix64(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

/// The images of the formula.
pub fn images(case: &Case, dtype: DType) -> Tensor {
    let input = &case.meta["input"];
    let (ax, cx) = (input["ax"].as_f64().unwrap(), input["cx"].as_f64().unwrap());
    let shape = sizes(&input["shape"]);
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count)
        .map(|i| (0.5 + 0.5 * (ax * i as f64 + cx).sin()) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}
