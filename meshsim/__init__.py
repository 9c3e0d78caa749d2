"""Istio's way out of the mesh, on a laptop."""

__version__ = "0.1.0"
