"""Differentiation of graphs: ``gradients`` (reverse mode); ``checker`` compares with differences."""

from tinyflow.autodiff.reverse import gradients

__all__ = ["gradients"]
