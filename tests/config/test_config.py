"""The configuration: what is valid, and that each error names field and remedy."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
import tiny

from ctx_encoder import config
from ctx_encoder.apps import cli
from ctx_encoder.apps.commands import config as command
from ctx_encoder.config import rules
from ctx_encoder.masks import parse_fill
from ctx_encoder.models import pretrained
from ctx_encoder.training import assembly

FIELDS = config.FIELDS
CONFIGS = sorted(
  path.stem for path in (pathlib.Path(__file__).parents[2] / "configs").glob("[!_]*.py")
)


def changed(**changes):
  """Returns the default configuration with its field a.b set to c by `a__b=c`."""
  made = config.default()
  made.update({name.replace("__", "."): value for name, value in changes.items()})
  return made


def error_of(**changes):
  with pytest.raises(ValueError, match=r"^Configuration: ") as error:
    config.validate(changed(**changes))
  message = str(error.value)
  assert "\n" not in message
  assert message.endswith(".")
  return message


def error_of_field(name, value):
  return error_of(**{name.replace(".", "__"): value})


def test_the_default_is_valid():
  config.validate(config.default())


def test_every_field_has_a_valid_default_range_and_help():
  for field in FIELDS.values():
    assert field.type in (bool, int, float, str), field
    assert len(field.help) > 5, field
    assert not field.help.endswith("."), field
    assert field.low <= field.high, field
    if field.choices:
      assert field.type is str, field
      assert field.default in field.choices, field
    if field.type in (bool, str):
      assert (field.low, field.high) == (-float("inf"), float("inf")), field
    elif field.default is not None:
      assert field.low <= field.default <= field.high, field


def test_flatten_gives_dotted_names():
  flat = config.flatten(config.default())
  assert flat == {name: field.default for name, field in FIELDS.items()}
  assert config.flatten({"a": {"b": {"c": 1}, "d": None}, "e": ()}) == {
    "a.b.c": 1,
    "a.d": None,
    "e": (),
  }


def test_every_kind_of_hole_has_a_probability():
  assert tuple(vars(config.default().masks.probabilities)) == config.MASK_KINDS
  assert FIELDS["masks.kind"].choices == (*config.MASK_KINDS, "combined")


def test_each_default_is_new_and_has_no_other_fields():
  one, other = config.default(), config.default()
  one.masks.probabilities.brush = 3.0
  assert other.masks.probabilities.brush == 0
  with pytest.raises(AttributeError, match="batch_sise'; nearest: batch_size"):
    one.batch_sise = 3


def test_unknown_names_give_the_nearest():
  for name, nearest in {
    "batch_sise": "batch_size",
    "batchsize": "batch_size",
    "masks.knid": "masks.kind",
    "optimizer.learning_rates": "optimizer.learning_rate",
    "learning_rate": "optimizer.learning_rate",
    "model.withd": "model.width",
  }.items():
    message = config.unknown(name, FIELDS)
    found = re.fullmatch(
      rf"there is no field '{re.escape(name)}'; nearest: (.+)", message
    )
    assert found is not None, message
    assert found[1].split(", ")[0] == nearest
    assert rules.field_problems({name: 1}) == [message]
    with pytest.raises(ValueError, match=f"In '{name}=1': there is no field"):
      config.parse(f"{name}=1")
    with pytest.raises(AttributeError, match="there is no field"):
      config.default().update({name: 1})
  assert config.unknown("zzzz", FIELDS) == "there is no field 'zzzz'"


def test_choices():
  for name, field in FIELDS.items():
    if not field.choices:
      continue
    message = error_of_field(name, field.choices[-1] + "x")
    assert f"'{name}' must be one of {', '.join(field.choices)}" in message
    assert f"did you mean {field.choices[-1]!r}?" in message
    assert "did you mean" not in error_of_field(name, "§§§")


def test_ranges():
  """Just beyond each bound a value is refused; the bound itself is valid."""
  tried = 0
  for name, field in FIELDS.items():
    step = 1 if field.type is int else 1e-3
    for bound, beyond in ((field.low, -step), (field.high, step)):
      if abs(bound) == float("inf"):
        continue
      value = bound + beyond
      message = error_of_field(name, value)
      assert f"'{name}' must be within [{field.low:g}, {field.high:g}]" in message
      assert f"not {value!r}; nearest: {bound:g}." in message
      assert rules.field_problems({name: field.type(bound)}) == []
      tried += 1
  assert tried > 80


def test_numbers_are_finite():
  for name, field in FIELDS.items():
    if field.type is float:
      for value in (float("nan"), float("inf"), float("-inf")):
        message = error_of_field(name, value)
        assert f"'{name}' must be a finite number, not {value!r}" in message


def test_types():
  wrong = {int: (1.0, "1", True), float: ("1", False), bool: (1, "yes"), str: (1, b"")}
  for name, field in FIELDS.items():
    for value in (*wrong[field.type], []):
      message = error_of_field(name, value)
      assert f"'{name}' must be {field.type.__name__}, not {value!r}" in message
    if field.default is None:
      config.validate(changed(**{name.replace(".", "__"): None}))
    else:
      assert f"'{name}' must not be None" in error_of_field(name, None)


def test_an_integer_becomes_a_float_where_a_float_is_expected():
  made = changed(model__width=1, model__dropout=0, augment__rotation=10)
  config.validate(made)
  values = made.model.width, made.model.dropout, made.augment.rotation
  assert all(type(value) is float for value in values)


def test_every_problem_is_named_at_once():
  message = error_of(batch_size=0, masks__kind="round", model__width="big")
  for name in ("batch_size", "masks.kind", "model.width"):
    assert f"'{name}'" in message
  message = error_of(data__load_size=1, masks__block_min_side=1, data__source="folder")
  assert message.count("; ") == 2


# (changes, part of the message, what to change to make it valid)
CONFLICTS = (
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
    "'model.depth' -2 removes more stages",
    {"model__depth": -1},
  ),
  (
    {"model__encoder": "vgg16", "model__depth": 1},
    "'model.depth' changes the generator's own encoder",
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
    "'discriminator.depth' 5 needs at least 96 pixels a side, and the"
    " discriminator's smallest input has 64",
    {"discriminator__depth": 4},
  ),
  (
    {
      "discriminator__depth": 5,
      "model__predict": "patch",
      "discriminator__sees": "patch",
    },
    "needs at least 96 pixels a side, and the discriminator's smallest input has 64",
    {"discriminator__sees": "completed"},
  ),
  (
    {"optimizer__weight_decay": 0.01},
    "'optimizer.weight_decay' needs 'optimizer.name=adamw'",
    {"optimizer__name": "adamw"},
  ),
  (
    {"adversarial__game": "wasserstein"},
    "'adversarial.game=wasserstein' needs a penalty",
    {"adversarial__gradient_penalty": 10.0},
  ),
  (
    {"adversarial__game": "wasserstein"},
    "'adversarial.gradient_penalty' (10 in the paper) or 'adversarial.r1'",
    {"adversarial__r1": 1.0},
  ),
  (
    {"adversarial__game": "wasserstein"},
    "'adversarial.game=wasserstein' needs a penalty",
    {"loss_weights__adversarial": 0.0},
  ),
  (
    {"adversarial__mask_aware": True, "discriminator__sees": "output"},
    "'adversarial.mask_aware' needs 'discriminator.sees=completed'",
    {"discriminator__sees": "completed"},
  ),
  (
    {
      "adversarial__mask_aware": True,
      "discriminator__sees": "patch",
      "model__predict": "patch",
    },
    "'adversarial.mask_aware' needs 'discriminator.sees=completed'",
    {"adversarial__mask_aware": False},
  ),
  (
    {"adversarial__label_smoothing": 0.2, "adversarial__game": "hinge"},
    "'adversarial.label_smoothing' needs 'adversarial.game' bce or least_squares",
    {"adversarial__game": "least_squares"},
  ),
  (
    {"optimizer__name": "rmsprop", "optimizer__b1": 0.9},
    "'optimizer.b1' is not used by 'optimizer.name=rmsprop'; leave it at 0.5",
    {"optimizer__name": "adamw"},
  ),
  (
    {"optimizer__name": "adadelta", "optimizer__b2": 0.9},
    "'optimizer.b2' is not used by 'optimizer.name=adadelta'; leave it at 0.999",
    {"optimizer__b2": 0.999},
  ),
  (
    {"model__encoder": "alexnet", "data__image_size": 32},
    "'model.encoder=alexnet' needs 'data.image_size' of at least 63, not 32",
    {"data__image_size": 64},
  ),
  (
    {"model__encoder": "vgg16", "data__image_size": 16, "discriminator__depth": 1},
    "'model.encoder=vgg16' needs 'data.image_size' of at least 32, not 16",
    {"data__image_size": 32},
  ),
  (
    {"loss_weights__style": 1.0, "style__features": "vgg16"},
    "'style.features' is 'vgg16', which needs 'style.path'",
    {"style__path": "vgg16.npz"},
  ),
  (
    {"loss_weights__content": 1.0, "content__features": "alexnet"},
    "'content.features' is 'alexnet', which needs 'content.path'",
    {"content__features": "auto"},
  ),
  (
    {"content__heads": "heads.pth"},
    "'content.heads' needs 'content.path'",
    {"content__path": "squeezenet.pth"},
  ),
  (
    {"content__heads": "a", "content__path": "b", "content__layers": "relu1"},
    "'content.layers' empty",
    {"content__layers": ""},
  ),
  (
    {"loss_weights__content": 1.0, "content__path": "a", "eval__path": "b"}
    | {"eval__features": "squeezenet"},
    "'eval.features' is squeezenet, which the content loss uses",
    {"eval__features": "alexnet"},
  ),
  (
    {"eval__heads": "heads.pth"},
    "'eval.heads' needs 'eval.path', the weights of alexnet",
    {"eval__path": "alexnet.pth"},
  ),
  (
    {"eval__best_by": "kid"},
    "'eval.best_by=kid' needs 'eval.path'",
    {"eval__path": "alexnet.pth"},
  ),
  (
    {"eval__best_by": "lpips", "eval__path": "alexnet.pth"},
    "'eval.best_by=lpips' needs 'eval.path', the weights of alexnet, and 'eval.heads'",
    {"eval__heads": "heads.pth"},
  ),
  (
    {"loss_weights__known": 1.0, "model__predict": "patch"},
    "'loss_weights.known' needs predictions outside the hole",
    {"model__predict": "image"},
  ),
  (
    {"reconstruction__pool": 3},
    "'reconstruction.pool' (3) must divide 'data.image_size' (128)",
    {"reconstruction__pool": 4},
  ),
  (
    {"reconstruction__pool": 4, "reconstruction__overlap": 2},
    "'reconstruction.pool' above 1 needs 'reconstruction.overlap=0'",
    {"reconstruction__pool": 1},
  ),
  (
    {"adversarial__patches": "hole", "discriminator__sees": "output"},
    "'adversarial.patches=hole' needs 'discriminator.sees=completed'",
    {"adversarial__patches": "all"},
  ),
  (
    {"adversarial__mask_aware": True, "discriminator__scales": 2},
    "'adversarial.mask_aware' needs 'discriminator.scales=1'",
    {"adversarial__mask_aware": False},
  ),
  (
    {"adversarial__patches": "hole", "adversarial__mask_aware": True},
    "'adversarial.patches=hole' and 'adversarial.mask_aware' exclude each other",
    {"adversarial__mask_aware": False},
  ),
  (
    {"adversarial__r1_every": 16},
    "'adversarial.r1_every' needs 'adversarial.r1'",
    {"adversarial__r1": 1.0},
  ),
  (
    {"loss_weights__feature_matching": 1.0, "loss_weights__adversarial": 0.0},
    "'loss_weights.feature_matching' needs 'loss_weights.adversarial'",
    {"loss_weights__adversarial": 0.1},
  ),
  (
    {"adversarial__diff_augment": "color,blur"},
    "'adversarial.diff_augment' has blur; it may have color, translation, cutout",
    {"adversarial__diff_augment": "color,cutout"},
  ),
  (
    {"optimizer__name": "rmsprop", "optimizer__discriminator_b2": 0.9},
    "'optimizer.discriminator_b2' is not used by 'optimizer.name=rmsprop'; leave it at"
    " None",
    {"optimizer__name": "adam"},
  ),
  (
    {"init_from": "landscape"},
    "'init_from=landscape' needs 'model.generator=landscape' and 'model.width=1'",
    config.LANDSCAPE,
  ),
  (
    {"init_from": "runs/one", "model__encoder": "vgg16", "model__encoder_weights": "a"},
    "leave 'model.encoder_weights' empty",
    {"model__encoder_weights": ""},
  ),
  (
    config.LANDSCAPE | {"model__upsample": "resize"},
    "'model.generator=landscape' needs 'model.upsample=transposed'",
    {"model__upsample": "transposed"},
  ),
)


def test_conflicts():
  for wrong, named, right in CONFLICTS:
    assert named in error_of(**wrong), named
    config.validate(changed(**wrong | right))


def test_colours():
  for fill in ("blu", "#fff", "123456", "#1234567", "", "Black"):
    assert (
      f"'masks.fill' must be black, white, mean, smooth or #rrggbb, not {fill!r}"
      in error_of(masks__fill=fill)
    )
    with pytest.raises(ValueError, match="fill"):
      parse_fill(fill, (0, 0, 0))


@pytest.mark.parametrize(
  ("generator", "predict", "size", "depth"),
  [("photos", "image", 16, 1), ("monet", "patch", 64, 4)],
)
def test_networks_at_the_limits_can_be_built(generator, predict, size, depth):
  valid = changed(
    data__image_size=size,
    model__generator=generator,
    model__predict=predict,
    discriminator__depth=depth,
  )
  config.validate(valid)
  run, state = assembly.run(valid), tiny.abstract_state(valid)
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  completed = jax.eval_shape(run.generator.apply, state.generator.variables, images)
  assert completed.shape == (2, run.view.output_size, run.view.output_size, 3)
  logits = jax.eval_shape(
    run.discriminator.apply, state.discriminator.variables, images
  )
  assert logits.shape == (2, size // 2**depth - 2, size // 2**depth - 2, 1)


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("vgg16", 32)])
def test_the_least_image_side_of_a_published_encoder_is_the_networks(name, least):
  encoder = pretrained.PretrainedEncoder(name)

  def code(side):
    images = jnp.zeros((1, side, side, 3))
    return jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), images))

  assert code(least)[0].shape[1:3] == (1, 1)
  with pytest.raises(ValueError, match=r"too small|at least"):
    code(least - 1)
  assert config.ENCODER_SIDES[name] == least


def test_files_in_configs():
  for name in CONFIGS:
    module = importlib.import_module(f"configs.{name}")
    for variant in ("", "quick", "small"):
      result = module.get_config(variant)
      config.validate(result)
      assert result.name == f"{name}_{variant}" if variant else name
    assert f"--config=configs/{name}.py" in module.__doc__
    with pytest.raises(ValueError, match="variants quick and small, not 'tiny'"):
      module.get_config("tiny")


def test_the_quick_variant_is_small():
  full, quick = config.default(), config.variant(config.default(), "quick")
  assert config.variant(config.default(), "") == full
  assert quick.name == "unnamed_quick"
  for name in ("data.image_size", "model.width", "discriminator.width", "batch_size"):
    assert config.flatten(quick)[name] < config.flatten(full)[name]
  assert 0 < quick.num_steps <= 2000


def test_reading_files_and_values(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from ctx_encoder import config\n\n\ndef get_config(variant=''):\n"
    "  return config.variant(config.default(), variant)\n"
  )
  assert config.read(str(path)) == config.default()
  assert config.read(f"{path}:quick").name == "unnamed_quick"
  with pytest.raises(FileNotFoundError, match="no configuration file"):
    config.read("none.py")
  assert config.parse("model.width=0.5") == ("model.width", [0.5])
  assert config.parse("masks.kind=brush,center", several=True) == (
    "masks.kind",
    ["brush", "center"],
  )
  for text in ("model.width", "model.width=", "=1"):
    with pytest.raises(ValueError, match=r"is not FIELD=VALUE|there is no field"):
      config.parse(text)


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


def test_the_command_lists_matching_fields(capsys):
  assert cli.main(["config", "ema"]) == 0
  assert capsys.readouterr().out == (
    f"ema_decay = 0.0\n    {FIELDS['ema_decay'].help}\n"
    "    float, at least 0, at most 0.99999\n"
  )
  assert cli.main(["config", "colour"]) == 1
  out, err = capsys.readouterr()
  assert (out, err) == ("", "ctx-encoder config: no field has 'colour' in its name.\n")


def test_the_command_has_help(capsys):
  with pytest.raises(SystemExit) as end:
    cli.main(["config", "--help"])
  assert end.value.code == 0
  assert command.__doc__.split("\n")[0] in capsys.readouterr().out
