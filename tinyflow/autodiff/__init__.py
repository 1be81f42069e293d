"""Differentiation of graphs: ``gradients`` (reverse mode); ``checker`` tests gradients."""

from tinyflow.autodiff.reverse import gradients

__all__ = ["gradients"]
