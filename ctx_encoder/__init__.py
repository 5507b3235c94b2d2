"""Image inpainting with Context Encoders in JAX."""

__version__ = "0.1.0"
