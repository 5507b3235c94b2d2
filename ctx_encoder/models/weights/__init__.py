"""Weight files, read without running anything in them.

- read: `load`, for NumPy, safetensors, Keras and PyTorch files.
- package: the weights that come with the package, checked.
- torch_state_dict: PyTorch's files without PyTorch.
- keras: a generator's layers as a Keras model, and its weights from and to Keras.
"""

from ctx_encoder.models.weights.read import Arrays, load

__all__ = ["Arrays", "load"]
