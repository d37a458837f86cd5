//! Shapes, liveness and dropout of a small network with a residual.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::activation::Activation;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// A convolution, a dropout, a convolution with the dropout's result as residual, a mean, a linear layer.
fn recorded() -> Recording {
    let (mut recording, x) = Recording::new([3, 6, 7]);
    let first = recording.convolution(x, &zeros(&[4, 3, 3, 3]), None, (2, 1), None, None, Activation::Relu);
    let dropped = recording.dropout(first.unwrap(), 1);
    let weight = zeros(&[4, 4, 3, 3]);
    let second = recording.convolution(dropped, &weight, None, (1, 1), None, None, Activation::Relu);
    let shape = (1, 1);
    let third = recording.convolution(
        second.unwrap(),
        &weight,
        None,
        shape,
        None,
        Some(dropped),
        Activation::None,
    );
    let mean = recording.mean_per_channel(third.unwrap());
    let bias = zeros(&[5]);
    let logits = recording.linear(mean, &zeros(&[5, 4]), Some(&bias), Activation::None);
    assert_eq!(logits.unwrap(), Value(6));
    recording
}

#[test]
fn shapes_are_inferred() {
    let graph = recorded().graph;
    let inner = [4, 3, 4];
    assert_eq!(
        graph.shapes,
        [[3, 6, 7], inner, inner, inner, inner, [4, 1, 1], [5, 1, 1]]
    );
    assert_eq!(graph.parameters, [108, 144, 144, 20, 5]);
}

#[test]
fn a_value_lives_until_its_last_reader() {
    let graph = recorded().graph;
    // The dropout's result is read by two convolutions, the logits by nothing.
    assert_eq!(
        graph.last_reads(),
        [vec![0], vec![1], vec![], vec![2, 3], vec![4], vec![5]]
    );
}

#[test]
fn the_gradient_reads_inputs_of_convolutions_and_results_of_relus() {
    let kept = recorded().graph.kept_for_gradient();
    assert_eq!(kept, [true, true, true, true, false, true, false]);
}

#[test]
fn a_network_at_rest_drops_nothing() {
    let graph = recorded().at_rest().graph;
    assert_eq!(graph.shapes.len(), 6);
    let reads: Vec<Vec<usize>> = graph.steps.iter().map(|step| step.reads().collect()).collect();
    assert_eq!(reads, [vec![0], vec![1], vec![2, 1], vec![3], vec![4]]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (mut recording, x) = Recording::new([3, 6, 7]);
    let error = recording
        .linear(x, &zeros(&[5, 4]), None, Activation::None)
        .unwrap_err();
    assert!(error.to_string().contains("4 features"), "{error}");
    let weight = zeros(&[4, 3, 3, 3]);
    let error = recording.convolution(x, &weight, None, (1, 1), None, Some(x), Activation::None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot be added"), "{error}");
}
