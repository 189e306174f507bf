"""Numbers that the papers and their notebooks print or plot, for the studies to stand beside."""

from __future__ import annotations

# Adebayo et al. 2018, cascading randomisation on MNIST, ten digits, Spearman after each step from the output down.
# ``abs`` is printed in the notebooks of their code; ``signed`` is read off the figures (+- .02), None where illegible.
Curve = tuple[float | None, ...]
CASCADE_ABS: dict[str, dict[str, Curve]] = {
    "adebayo_cnn": {
        "gradient": (0.601, 0.396, 0.106, 0.082),
        "smoothgrad": (0.536, 0.330, 0.180, 0.213),
        "guided_backprop": (0.888, 0.773, 0.628, 0.444),
        "grad_cam": (0.556, 0.344, 0.290, 0.299),
        "guided_grad_cam": (0.555, 0.359, 0.329, 0.282),
        "integrated_gradients": (0.994, 0.993, 0.993, 0.992),
        "input_x_gradient": (0.993, 0.993, 0.993, 0.992),
        "smoothgrad_ig": (0.577, 0.429, 0.379, 0.361),
    },
    "adebayo_mlp": {
        "gradient": (0.234, 0.099, 0.015, 0.020),
        "smoothgrad": (0.255, 0.124, 0.007, 0.025),
        "guided_backprop": (0.903, 0.823, 0.439, 0.044),
        "integrated_gradients": (0.994, 0.993, 0.992, 0.993),
        "input_x_gradient": (0.994, 0.993, 0.992, 0.993),
        "smoothgrad_ig": (0.407, 0.368, 0.335, 0.345),
    },
}
CASCADE_SIGNED: dict[str, dict[str, Curve]] = {
    "adebayo_cnn": {
        "gradient": (0.28, 0.06, 0.0, 0.0),
        "smoothgrad": (0.30, 0.10, -0.02, 0.01),
        "guided_backprop": (0.89, 0.76, 0.64, 0.36),
        "grad_cam": (0.55, 0.34, 0.29, 0.29),
        "guided_grad_cam": (0.62, 0.38, 0.43, 0.21),
        "integrated_gradients": (0.28, 0.16, 0.0, 0.03),
        "input_x_gradient": (0.25, 0.15, 0.0, 0.07),
    },
    "adebayo_mlp": {
        "gradient": (0.45, 0.21, 0.03, 0.0),
        "guided_backprop": (0.97, 0.94, 0.70, 0.17),
        "input_x_gradient": (0.27, 0.12, 0.02, 0.05),
    },
}
# Each layer alone drawn again, medians of abs read off the box plots.
INDEPENDENT_ABS: dict[str, dict[str, Curve]] = {
    "adebayo_cnn": {
        "gradient": (0.61, 0.38, 0.34, 0.36),
        "guided_backprop": (0.89, 0.80, 0.60, 0.55),
    },
}
# The same paper, Figure 5, labels permuted: abs (signed), on Fashion-MNIST, read off the bars.
PERMUTED: dict[str, dict[str, tuple[float, float]]] = {
    "fashion_cnn": {
        "gradient": (0.06, 0.02),
        "smoothgrad": (0.08, 0.03),
        "guided_backprop": (0.56, 0.08),
        "grad_cam": (-0.05, 0.08),
        "guided_grad_cam": (0.56, 0.08),
        "integrated_gradients": (0.89, 0.05),
        "smoothgrad_ig": (0.55, 0.05),
        "input_x_gradient": (0.89, 0.03),
    },
    "fashion_mlp": {
        "gradient": (0.16, 0.0),
        "smoothgrad": (0.16, -0.02),
        "guided_backprop": (0.28, 0.17),
        "integrated_gradients": (0.89, -0.01),
        "smoothgrad_ig": (0.67, 0.0),
        "input_x_gradient": (0.89, 0.0),
    },
}

# Yasin, Hare, Marcu 2024, CIFAR-10, class predicted, three seeds: percent of images whose maximum is the pixel, as
# (logit, softmax); and on the images it misses (softmax) percent right with the pixel alone (BP), with what was
# pointed at alone (BA), with the pixel blackened (TP), with what was pointed at blackened (TA). For vgg16's first row
# one seed misses nothing, which their code averages as 0.
POINTING: dict[str, dict[str, tuple[float, float]]] = {
    "resnet18_3x3": {
        "predict_importance_absgrad": (97.7, 99.1),
        "predict_importance_grad_inp": (52.3, 62.7),
        "predict_importance_integrated_gradient": (99.9, 98.4),
        "predict_importance_integrated_gradient_white": (99.9, 98.4),
    },
    "vgg16": {
        "predict_importance_absgrad": (100.0, 100.0),
        "predict_importance_grad_inp": (81.3, 51.7),
        "predict_importance_integrated_gradient": (100.0, 93.6),
        "predict_importance_integrated_gradient_white": (100.0, 98.3),
    },
}
IMPORTANCE: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "resnet18_3x3": {
        "predict_importance_absgrad": (100.0, 9.5, 12.0, 98.4),
        "predict_importance_grad_inp": (98.8, 15.7, 17.0, 98.9),
        "predict_importance_integrated_gradient": (100.0, 62.2, 60.6, 64.8),
        "predict_importance_integrated_gradient_white": (100.0, 93.1, 87.1, 92.9),
    },
    "vgg16": {
        "predict_importance_absgrad": (66.7, 4.8, 0.0, 33.3),
        "predict_importance_grad_inp": (100.0, 15.6, 15.8, 99.1),
        "predict_importance_integrated_gradient": (100.0, 94.1, 95.2, 99.3),
        "predict_importance_integrated_gradient_white": (100.0, 69.8, 70.0, 97.3),
    },
}
# Accuracy with the pixel and without it.
PIXEL_ACCURACY = {"resnet18_3x3": (99.8, 12.4), "vgg16": (99.9, 11.5)}
