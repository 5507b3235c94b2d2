"""The configuration: what is valid, and that each error names field and remedy."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from ml_collections import config_dict

from ctx_encoder.apps import cli
from ctx_encoder.apps.commands import config as command
from ctx_encoder.config import schema as config
from ctx_encoder.masks import parse_fill
from ctx_encoder.training import assembly as build

FIELDS = dict(config.fields())
CONFIGS = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parents[2] / "configs").glob("*.py")
  if path.stem != "__init__"
)


def changed(**changes):
  """Returns the default configuration with `a__b=c` as its field a.b, of any type."""
  nested = config.default().to_dict()
  for name, value in changes.items():
    *path, last = name.split("__")
    section = nested
    for part in path:
      section = section[part]
    section[last] = value
  return config_dict.ConfigDict(nested)


def error_of(**changes):
  with pytest.raises(ValueError, match=r"^Configuration: ") as error:
    config.validate(changed(**changes))
  message = str(error.value)
  assert "\n" not in message
  assert message.endswith(".")
  return message


def test_the_default_is_valid():
  config.validate(config.default())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_sound_default_range_and_help(name):
  field = FIELDS[name]
  assert field.type in (bool, int, float, str)
  assert len(field.help) > 5
  assert not field.help.endswith(".")
  assert field.low <= field.high
  if field.choices:
    assert field.type is str
    assert field.default in field.choices
  if field.type in (bool, str):
    assert (field.low, field.high) == (
      config.Field("", "").low,
      config.Field("", "").high,
    )
  elif field.default is not None:
    assert field.low <= field.default <= field.high


def test_flatten_gives_the_names_of_the_schema():
  flat = config.flatten(config.default())
  assert flat == {name: field.default for name, field in FIELDS.items()}
  assert config.flatten({"a": {"b": {"c": 1}, "d": None}, "e": ()}) == {
    "a.b.c": 1,
    "a.d": None,
    "e": (),
  }


def test_every_kind_of_hole_has_a_probability():
  assert tuple(config.SCHEMA["masks"]["probabilities"]) == config.MASK_KINDS
  assert config.SCHEMA["masks"]["kind"].choices == (*config.MASK_KINDS, "combined")


def test_default_is_new_and_locked():
  one, other = config.default(), config.default()
  one.masks.probabilities.brush = 3.0
  assert other.masks.probabilities.brush == 0
  with pytest.raises(AttributeError, match="batch_sise"):
    one.batch_sise = 3
  with pytest.raises(KeyError):
    one["batch_sise"] = 3


@pytest.mark.parametrize(
  ("name", "nearest"),
  [
    ("batch_sise", "batch_size"),
    ("batchsize", "batch_size"),
    ("masks__knid", "masks.kind"),
    ("optimizer__learning_rates", "optimizer.learning_rate"),
    ("learning_rate", "optimizer.learning_rate"),
    ("model__withd", "model.width"),
  ],
)
def test_unknown_names(name, nearest):
  message = error_of(**{name: 1})
  dotted = name.replace("__", ".")
  found = re.search(rf"no field '{re.escape(dotted)}'; nearest: ([\w., ]+)\.", message)
  assert found is not None, message
  assert found[1].split(", ")[0] == nearest


def test_a_name_that_is_like_no_other_has_no_hint():
  assert error_of(zzzz=1) == "Configuration: there is no field 'zzzz'."


def test_missing_fields_and_sections():
  given = config.default()
  with given.unlocked():
    del given.seed
    del given.masks.probabilities
  with pytest.raises(ValueError, match="field 'seed' is missing") as error:
    config.validate(given)
  assert "field 'masks.probabilities.brush' is missing" in str(error.value)


@pytest.mark.parametrize(
  "name", [name for name, field in FIELDS.items() if field.choices]
)
def test_choices(name):
  field, flag = FIELDS[name], name.replace(".", "__")
  message = error_of(**{flag: field.choices[-1] + "x"})
  assert f"'{name}' must be one of {', '.join(field.choices)}" in message
  assert f"did you mean {field.choices[-1]!r}?" in message
  assert "did you mean" not in error_of(**{flag: "§§§"})


def outside():
  """Every bound of every field, and a value just beyond it."""
  for name, field in FIELDS.items():
    if field.type in (int, float):
      step = 1 if field.type is int else 1e-3
      for bound, beyond in ((field.low, -step), (field.high, step)):
        if abs(bound) != float("inf"):
          yield pytest.param(
            name, bound, bound + beyond, id=f"{name}={bound + beyond:g}"
          )


@pytest.mark.parametrize(("name", "bound", "value"), list(outside()))
def test_ranges(name, bound, value):
  field = FIELDS[name]
  message = error_of(**{name.replace(".", "__"): value})
  assert f"'{name}' must be within [{field.low:g}, {field.high:g}]" in message
  assert f"not {value!r}; nearest: {bound:g}." in message
  edge = config.flatten(config.default()) | {name: field.type(bound)}
  assert config._problem(name, field, edge[name]) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
  "name", [name for name, field in FIELDS.items() if field.type is float]
)
def test_numbers_are_finite(name, value):
  message = error_of(**{name.replace(".", "__"): value})
  assert f"'{name}' must be a finite number, not {value!r}" in message


@pytest.mark.parametrize("name", FIELDS)
def test_types(name):
  field, flag = FIELDS[name], name.replace(".", "__")
  wrong = {int: (1.0, "1", True), float: ("1", False), bool: (1, "yes"), str: (1, b"")}
  for value in (*wrong[field.type], []):
    message = error_of(**{flag: value})
    assert f"'{name}' must be {field.type.__name__}, not {value!r}" in message
  if field.default is None:
    config.validate(changed(**{flag: None}))
  else:
    assert f"'{name}' must not be None" in error_of(**{flag: None})


def test_integers_are_numbers_where_floats_are_asked_for():
  config.validate(changed(model__width=1, model__dropout=0, augment__rotation=10))


def test_every_problem_is_named_at_once():
  message = error_of(batch_size=0, seeds=1, masks__kind="round", model__width="big")
  for name in ("batch_size", "seeds", "masks.kind", "model.width"):
    assert f"'{name}'" in message


@pytest.mark.parametrize(
  ("wrong", "named", "right"),
  [
    (
      {"data__load_size": 127},
      "'data.load_size' (127) must be 0 or at least 'data.image_size' (128)",
      {"data__load_size": 128},
    ),
    (
      {"data__source": "folder"},
      "'data.source' is 'folder', which needs 'data.path'",
      {"data__path": "pictures"},
    ),
    (
      {"data__source": "tfrecord"},
      "'data.source' is 'tfrecord', which needs 'data.path'",
      {"data__path": "records"},
    ),
    (
      {"data__source": "tfds"},
      "'data.source' is 'tfds', which needs 'data.path'",
      {"data__path": "oxford_flowers102"},
    ),
    (
      {"data__image_size": 100},
      "'data.image_size' must be a power of two, not 100; nearest: 128",
      {"data__image_size": 256},
    ),
    (
      {"data__placement": "device", "data__cache": "none"},
      "'data.placement=device' needs images in memory, not 'data.cache=none'",
      {"data__cache": "auto"},
    ),
    (
      {"masks__fill": "#12345g"},
      "'masks.fill' must be black, white, mean, smooth or #rrggbb, not '#12345g'",
      {"masks__fill": "#12345F"},
    ),
    (
      {"masks__block_min_side": 0.5},
      "'masks.block_min_side' is above 'masks.block_max_side'",
      {"masks__block_max_side": 0.5},
    ),
    (
      {"masks__kind": "random_region", "masks__region": "shapes"},
      "'masks.region' is 'shapes', which needs 'masks.path'",
      {"masks__path": "silhouettes"},
    ),
    (
      {"masks__kind": "combined", "masks__region": "shapes"},
      "'masks.region' is 'shapes', which needs 'masks.path'",
      {"masks__probabilities__random_region": 0.0},
    ),
    (
      {"masks__kind": "combined"}
      | {f"masks__probabilities__{kind}": 0.0 for kind in config.MASK_KINDS},
      "'masks.probabilities' are all 0",
      {"masks__probabilities__brush": 0.5},
    ),
    (
      {"loss_weights__reconstruction": 0.0, "loss_weights__adversarial": 0.0},
      "'loss_weights' are all 0",
      {"loss_weights__adversarial": 1.0},
    ),
    (
      {"accumulate": 3},
      "'accumulate' (3) must divide 'batch_size' (32)",
      {"batch_size": 33},
    ),
    (
      {"accumulate": 2, "update_order": "alternating"},
      "'accumulate' above 1 needs 'update_order=simultaneous'",
      {"update_order": "simultaneous"},
    ),
    (
      {"model__generator": "monet", "model__depth": -2},
      "'model.depth' -2 takes away more stages",
      {"model__depth": -1},
    ),
    (
      {"model__encoder": "vgg16", "model__depth": 1},
      "'model.depth' is of the generator's own encoder",
      {"model__depth": 0},
    ),
    (
      {"model__skips": True},
      "'model.skips' needs 'model.generator=monet'",
      {"model__generator": "monet"},
    ),
    (
      {"masks__kind": "brush", "model__predict": "patch"},
      "'model.predict=patch' predicts the centre and needs 'masks.kind=center'",
      {"masks__kind": "center"},
    ),
    (
      {"discriminator__sees": "patch"},
      "'discriminator.sees=patch' needs 'model.predict=patch'",
      {"model__predict": "patch"},
    ),
    (
      {"model__predict": "patch", "reconstruction__overlap": 4},
      "predicts 64 pixels a side, and hole and overlap take 72;",
      {"masks__center_fraction": 0.4375},
    ),
    (
      {"discriminator__depth": 5, "data__image_size": 64},
      "'discriminator.depth' 5 needs at least 96 pixels a side, and the discriminator"
      " sees 64",
      {"discriminator__depth": 4},
    ),
    (
      {
        "discriminator__depth": 5,
        "model__predict": "patch",
        "discriminator__sees": "patch",
      },
      "needs at least 96 pixels a side, and the discriminator sees 64",
      {"discriminator__sees": "completed"},
    ),
    (
      {"optimizer__weight_decay": 0.01},
      "'optimizer.weight_decay' needs 'optimizer.name=adamw'",
      {"optimizer__name": "adamw"},
    ),
  ],
)
def test_contradictions(wrong, named, right):
  assert named in error_of(**wrong)
  config.validate(changed(**wrong | right))


@pytest.mark.parametrize("fill", ["blu", "#fff", "123456", "#1234567", "", "Black"])
def test_colours(fill):
  assert (
    f"'masks.fill' must be black, white, mean, smooth or #rrggbb, not {fill!r}"
    in error_of(masks__fill=fill)
  )
  with pytest.raises(ValueError, match="A fill is"):
    parse_fill(fill, (0, 0, 0))


@pytest.mark.parametrize(
  ("generator", "predict", "size", "depth"),
  [("photos", "image", 16, 1), ("monet", "patch", 64, 4)],
)
def test_the_edges_of_what_is_valid_can_be_built(generator, predict, size, depth):
  valid = changed(
    data__image_size=size,
    model__generator=generator,
    model__predict=predict,
    discriminator__depth=depth,
  )
  config.validate(valid)
  run = build.run(valid, total_steps=1)
  state = jax.eval_shape(lambda: run.init(0, average=False))
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  completed = jax.eval_shape(run.generator.apply, state.generator.variables, images)
  assert completed.shape == (2, run.task.output_size, run.task.output_size, 3)
  logits = jax.eval_shape(
    run.discriminator.apply, state.discriminator.variables, images
  )
  assert logits.shape == (2, size // 2**depth - 2, size // 2**depth - 2, 1)


def test_every_contradiction_is_named_at_once():
  message = error_of(data__load_size=1, masks__block_min_side=1, data__source="folder")
  assert message.count("; ") == 2


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("variant", ["", "quick", "small"])
def test_files_in_configs(name, variant):
  module = importlib.import_module(f"configs.{name}")
  result = module.get_config(variant)
  config.validate(result)
  assert result.name == f"{name}_{variant}" if variant else name
  assert f"--config=configs/{name}.py" in module.__doc__
  with pytest.raises(ValueError, match="has the variants quick and small, not 'tiny'"):
    module.get_config("tiny")


def test_the_quick_variant_is_small():
  full, quick = config.default(), config.variant(config.default(), "quick")
  assert config.variant(config.default(), "") == full
  assert quick.name == "unnamed_quick"
  for name in ("data.image_size", "model.width", "discriminator.width", "batch_size"):
    assert config.flatten(quick)[name] < config.flatten(full)[name]
  assert 0 < quick.num_steps <= 2000


def test_the_command_lists_every_field(capsys):
  assert cli.main(["config"]) == 0
  out, err = capsys.readouterr()
  assert err == ""
  for name, field in FIELDS.items():
    entry = out.split(f"\n{name} = " if name != "name" else "name = ", 1)[1]
    entry = entry.split("\n\n")[0]
    assert entry.startswith(f"{field.default!r}\n    {field.help}")
  assert len(re.findall(r"^\S", out, re.MULTILINE)) == len(FIELDS)
  assert out.count("one of: ") == sum(bool(field.choices) for field in FIELDS.values())


def test_the_command_lists_what_is_asked_for(capsys):
  assert cli.main(["config", "ema"]) == 0
  assert capsys.readouterr().out == (
    "ema_decay = 0.0\n"
    "    decay of the averaged generator that is evaluated and used; 0 = off\n"
    "    float, at least 0, at most 0.99999\n"
  )
  assert cli.main(["config", "colour"]) == 1
  out, err = capsys.readouterr()
  assert (out, err) == ("", "ctx-encoder config: no field has 'colour' in its name.\n")


def test_the_command_explains_itself(capsys):
  with pytest.raises(SystemExit) as end:
    cli.main(["config", "--help"])
  assert end.value.code == 0
  assert command.__doc__.split("\n")[0] in capsys.readouterr().out
