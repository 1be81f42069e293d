"""Differentiation of graphs: ``gradients`` (reverse mode) and ``check_gradients``."""

from tinyflow.autodiff.reverse import gradients

__all__ = ["gradients"]
