"""A run goes on only under the configuration it was started with."""

import fnmatch
import json

import pytest

from ctx_encoder.config import schema as config
from ctx_encoder.training.checkpoint import MAY_CHANGE, check_config

CONFIG = {"seed": 3, "model": {"width": 0.5, "dropout": None}}


def test_the_same():
  check_config(json.loads(json.dumps(CONFIG)), CONFIG)
  saved = config.default().to_dict()
  check_config(json.loads(json.dumps(saved)), saved)
  check_config({"colour": [1, 2]}, {"colour": (1, 2)})


def test_names_all_that_differ():
  now = {"seed": 3, "model": {"width": 1.0, "dropout": 0.4}, "new": "x"}
  with pytest.raises(ValueError, match="another configuration") as error:
    check_config(CONFIG | {"old": ""}, now)
  message = str(error.value)
  assert "model.width: 0.5 in the checkpoint, 1.0 now" in message
  assert "model.dropout: None in the checkpoint, 0.4 now" in message
  assert "new: absent in the checkpoint, 'x' now" in message
  assert "old: '' in the checkpoint, absent now" in message
  assert "seed" not in message
  assert "--workdir" in message
  assert "\n" not in message


def test_what_may_change():
  before, now = config.default(), config.default()
  now.data.path = "elsewhere"
  now.eval.grid_images = 3
  now.num_epochs = 7
  check_config(before.to_dict(), now.to_dict())
  with pytest.raises(ValueError, match=r"data\.path: '' in"):
    check_config(before.to_dict(), now.to_dict(), ignore=("eval.*", "num_*"))


def test_the_list_names_fields_that_exist():
  names = [name for name, _ in config.fields()]
  for pattern in MAY_CHANGE:
    assert fnmatch.filter(names, pattern), pattern
