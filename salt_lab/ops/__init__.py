"""Tensor maths: points, point convolution, the portable mmcv ops."""
