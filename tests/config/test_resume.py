"""A run is resumed only with the configuration it was started with."""

import json

import pytest

from ctx_encoder import config


def other_value(field):
  """Returns a valid value of a field that is not its default."""
  if field.type is bool:
    return not field.default
  if field.choices:
    return next(choice for choice in field.choices if choice != field.default)
  if field.type is str:
    return field.default + "other"
  default = 0 if field.default is None else field.default
  bounds = field.low, field.high
  return next(
    field.type(value)
    for value in (default + 1, default / 2, default + 0.25)
    if bounds[0] <= value <= bounds[1] and field.type(value) != field.default
  )


def test_a_saved_configuration_is_the_same():
  made = config.default()
  made.update({"seed": 3, "model.dropout": 0.5, "masks.kind": "brush"})
  saved = config.from_saved(json.loads(json.dumps(config.to_dict(made))))
  assert saved == made
  config.check_resume(saved, made)


def test_which_fields_may_change():
  for name, field in config.FIELDS.items():
    now, value = config.default(), other_value(field)
    now.update({name: value})
    if field.may_change:
      config.check_resume(config.default(), now)
      continue
    with pytest.raises(ValueError, match="another configuration") as error:
      config.check_resume(config.default(), now)
    assert f"{name}: {field.default!r} in the checkpoint, {value!r} now" in str(
      error.value
    )
    assert str(error.value).count("in the checkpoint,") == 1
  changing = {name for name, field in config.FIELDS.items() if field.may_change}
  assert {"data.path", "num_steps", "eval.grid_images"} <= changing
  assert not changing & {"seed", "batch_size", "model.width", "masks.kind"}


def test_all_differences_are_named_in_one_line():
  now = config.default()
  now.update({"model.width": 0.5, "model.dropout": 0.4, "name": "other"})
  with pytest.raises(ValueError, match="another configuration") as error:
    config.check_resume(config.default(), now)
  message = str(error.value)
  assert "model.width: 1.0 in the checkpoint, 0.5 now" in message
  assert "model.dropout: None in the checkpoint, 0.4 now" in message
  assert "seed" not in message
  assert "--workdir" in message
  assert "\n" not in message


def test_a_cosine_schedule_keeps_its_number_of_steps():
  """With another number, the learning rate would jump."""
  for name, value in (("num_steps", 500), ("num_epochs", 7)):
    saved, now = config.default(), config.default()
    now.update({name: value})
    config.check_resume(saved, now)
    for each in (saved, now):
      each.optimizer.schedule = "cosine"
    before = config.FIELDS[name].default
    with pytest.raises(ValueError, match=f"{name}: {before} in the .*, {value} now"):
      config.check_resume(saved, now)


def test_fields_of_other_versions():
  """New fields have their defaults; fields that no longer exist are left out."""
  saved = config.to_dict(config.default())
  del saved["adversarial"], saved["seed"]
  saved |= {"gone": 3}
  saved["model"] |= {"gone_too": "x"}
  assert config.from_saved(saved) == config.default()
