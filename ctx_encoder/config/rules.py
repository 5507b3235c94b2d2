"""What makes a configuration invalid: fields out of range and fields that conflict."""

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ctx_encoder.config.fields import Field, unknown
from ctx_encoder.config.objective import DIFF_AUGMENTS
from ctx_encoder.config.overrides import flatten
from ctx_encoder.config.schema import ENCODER_SIDES, FIELDS, Config, Model

_Rules = Iterator[tuple[Any, str]]


def validate(config: Config) -> None:
  """Checks every field, and the fields against each other.

  Raises:
    ValueError: names every field that is out of range or of another type, or else
      every pair of fields that conflict.
  """
  problems = field_problems(flatten(config)) or conflicts(config)
  if problems:
    raise ValueError("Configuration: " + "; ".join(problems) + ".")


def field_problems(values: Mapping[str, Any]) -> list[str]:
  """Returns what is wrong with {dotted name: value}, field by field."""
  problems = []
  for name, value in values.items():
    if name not in FIELDS:
      problems.append(unknown(name, FIELDS))
    elif problem := _problem(FIELDS[name], value):
      problems.append(problem)
  return problems


def conflicts(config: Config) -> list[str]:
  """Returns what is wrong with fields that are valid one by one."""
  groups = (_run_rules, _data_rules, _mask_rules, _model_rules, _landscape_rules)
  groups += (_reconstruction_rules, _feature_rules, _game_rules, _discriminator_rules)
  return [text for rules in groups for broken, text in rules(config) if broken]


def _problem(field: Field, value: Any) -> str | None:
  name = field.name
  if value is None:
    return None if field.optional else f"'{name}' must not be None"
  numeric = field.type in (int, float)
  accepted = (int, float) if field.type is float else field.type
  if not isinstance(value, accepted) or (numeric and isinstance(value, bool)):
    return f"'{name}' must be {field.type.__name__}, not {value!r}"
  if field.choices and value not in field.choices:
    near = difflib.get_close_matches(str(value), field.choices, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"'{name}' must be one of {', '.join(field.choices)}, not {value!r}{hint}"
  if numeric and not math.isfinite(value):
    return f"'{name}' must be a finite number, not {value!r}"
  if numeric and not field.low <= value <= field.high:
    nearest = min(max(value, field.low), field.high)
    return (
      f"'{name}' must be within [{field.low:g}, {field.high:g}], not {value!r};"
      f" nearest: {nearest:g}"
    )
  return None


# Each of these yields (whether the rule is broken, the message).


def _run_rules(config: Config) -> _Rules:
  yield (
    config.batch_size % config.accumulate,
    f"'accumulate' ({config.accumulate}) must divide 'batch_size'"
    f" ({config.batch_size})",
  )
  yield (
    config.accumulate > 1 and config.update_order == "alternating",
    "'accumulate' above 1 needs 'update_order=simultaneous'",
  )
  optimizer = config.optimizer
  yield (
    optimizer.weight_decay and optimizer.name != "adamw",
    "'optimizer.weight_decay' needs 'optimizer.name=adamw'",
  )
  for name in ("b1", "b2", "discriminator_b1", "discriminator_b2"):
    value, default = getattr(optimizer, name), getattr(type(optimizer), name)
    yield (
      value != default and optimizer.name not in ("adam", "adamw"),
      f"'optimizer.{name}' is not used by 'optimizer.name={optimizer.name}'; leave it"
      f" at {default}",
    )


def _data_rules(config: Config) -> _Rules:
  data = config.data
  size = data.image_size
  yield (
    size & (size - 1) and config.model.generator != "landscape",
    f"'data.image_size' must be a power of two, not {size};"
    f" nearest: {2 ** round(math.log2(size))}",
  )
  yield (
    0 < data.load_size < size,
    f"'data.load_size' ({data.load_size}) must be 0 or at least 'data.image_size'"
    f" ({size})",
  )
  yield (
    data.source in ("folder", "tfrecord", "tfds") and not data.path,
    f"'data.source' is {data.source!r}, which needs 'data.path'",
  )
  yield (
    data.placement == "device" and data.cache == "none",
    "'data.placement=device' needs images in memory, not 'data.cache=none'",
  )


def _mask_rules(config: Config) -> _Rules:
  masks = config.masks
  combined = masks.kind == "combined"
  uses_region = masks.kind == "random_region" or (
    combined and masks.probabilities.random_region > 0
  )
  yield (
    not re.fullmatch("black|white|mean|smooth|#[0-9a-fA-F]{6}", masks.fill),
    f"'masks.fill' must be black, white, mean, smooth or #rrggbb, not {masks.fill!r}",
  )
  yield (
    masks.block_min_side > masks.block_max_side,
    "'masks.block_min_side' is above 'masks.block_max_side'",
  )
  yield (
    uses_region and masks.region == "shapes" and not masks.path,
    "'masks.region' is 'shapes', which needs 'masks.path', a folder of silhouettes",
  )
  yield (
    combined and not any(vars(masks.probabilities).values()),
    "'masks.probabilities' are all 0; at least one must be above 0",
  )


def _model_rules(config: Config) -> _Rules:
  model, size = config.model, config.data.image_size
  yield (
    config.init_from and model.encoder_weights,
    "'init_from' gives all weights of the generator; leave 'model.encoder_weights'"
    " empty",
  )
  yield (
    config.init_from == "landscape"
    and (model.generator != "landscape" or model.width != 1),
    "'init_from=landscape' needs 'model.generator=landscape' and 'model.width=1'",
  )
  patch = model.predict == "patch"
  own = model.encoder == "auto"
  yield (
    own and (model.encoder_weights or model.freeze_encoder),
    "'model.encoder_weights' and 'model.freeze_encoder' need 'model.encoder', vgg16"
    " or alexnet",
  )
  yield (
    not own and (config.data.normalization != "symmetric" or model.mask_channel),
    f"'model.encoder={model.encoder}' takes three colour channels, normalized in its"
    " own way: it needs 'data.normalization=symmetric' and no 'model.mask_channel'",
  )
  yield (
    size < ENCODER_SIDES.get(model.encoder, 0),
    f"'model.encoder={model.encoder}' needs 'data.image_size' of at least"
    f" {ENCODER_SIDES.get(model.encoder)}, not {size}",
  )
  yield (
    model.depth < (-2 if model.generator == "photos" else -1),
    f"'model.depth' {model.depth} removes more stages than 'model.generator=monet'"
    " has of stride 1, which is 1",
  )
  yield (
    model.depth and not own,
    f"'model.depth' changes the generator's own encoder, not {model.encoder}",
  )
  yield (
    model.skips and (model.generator != "monet" or patch),
    "'model.skips' needs 'model.generator=monet' and no 'model.predict=patch', where"
    " encoder and decoder stages have the same sizes",
  )
  yield (
    patch and config.masks.kind != "center",
    "'model.predict=patch' predicts the centre and needs 'masks.kind=center'",
  )
  predicted = config.masks.center_fraction * size + 2 * config.reconstruction.overlap
  yield (
    patch and predicted > size / 2,
    f"'model.predict=patch' predicts {size // 2} pixels a side, and hole and overlap"
    f" take {predicted:g}; lower 'masks.center_fraction' or 'reconstruction.overlap'",
  )


def _landscape_rules(config: Config) -> _Rules:
  model, size = config.model, config.data.image_size
  if model.generator != "landscape":
    return
  yield (
    size % 8,
    f"'model.generator=landscape' needs a multiple of 8 pixels, not {size}",
  )
  needed = {"predict": "residual", "mask_channel": True}
  needed |= {name: getattr(Model, name) for name in ("encoder", "bottleneck", "depth")}
  needed |= {name: getattr(Model, name) for name in ("skips", "noise_dim", "dropout")}
  needed |= {"upsample": Model.upsample}
  for name, value in needed.items():
    yield (
      getattr(model, name) != value,
      f"'model.generator=landscape' needs 'model.{name}={value}'",
    )


def _reconstruction_rules(config: Config) -> _Rules:
  weights, options = config.loss_weights, config.reconstruction
  yield (
    not any(vars(weights).values()),
    "'loss_weights' are all 0; at least one must be above 0",
  )
  yield (
    weights.known and config.model.predict == "patch",
    "'loss_weights.known' needs predictions outside the hole, and"
    " 'model.predict=patch' has none",
  )
  yield (
    config.data.image_size % options.pool,
    f"'reconstruction.pool' ({options.pool}) must divide 'data.image_size'"
    f" ({config.data.image_size})",
  )
  yield (
    options.pool > 1 and (options.overlap or options.discount < 1),
    "'reconstruction.pool' above 1 needs 'reconstruction.overlap=0' and"
    " 'reconstruction.discount=1'",
  )


def _feature_rules(config: Config) -> _Rules:
  weights, style, content = config.loss_weights, config.style, config.content
  found, trained = config.eval, content.network()
  for name, used, features, path in (
    ("style", weights.style, style.features, style.path),
    ("content", weights.content, content.network(), content.path),
  ):
    yield (
      used and features not in ("random", "discriminator") and not path,
      f"'{name}.features' is {features!r}, which needs '{name}.path'; or use 'random'",
    )
  yield (
    content.heads and (trained in ("random", "vgg19") or content.layers),
    "'content.heads' needs 'content.path', 'content.features' squeezenet, alexnet or"
    " vgg16, and 'content.layers' empty: LPIPS has its own",
  )
  for name, needed in (
    ("'eval.heads'", found.heads),
    ("'eval.best_by=kid'", found.best_by == "kid"),
  ):
    yield (
      needed and not found.path,
      f"{name} needs 'eval.path', the weights of {found.features}",
    )
  yield (
    found.best_by == "lpips" and not (found.heads and found.path),
    f"'eval.best_by=lpips' needs 'eval.path', the weights of {found.features}, and"
    " 'eval.heads', those of LPIPS",
  )
  yield (
    found.path and weights.content and trained == found.features,
    f"'eval.features' is {trained}, which the content loss uses: a network that is"
    " trained on does not measure",
  )


def _game_rules(config: Config) -> _Rules:
  weights, adversarial = config.loss_weights, config.adversarial
  sees = config.discriminator.sees
  yield (
    adversarial.label_smoothing and adversarial.game not in ("bce", "least_squares"),
    "'adversarial.label_smoothing' needs 'adversarial.game' bce or least_squares",
  )
  yield (
    weights.adversarial
    and adversarial.game == "wasserstein"
    and not (adversarial.gradient_penalty or adversarial.r1),
    "'adversarial.game=wasserstein' needs a penalty that bounds the discriminator's"
    " slope: 'adversarial.gradient_penalty' (10 in the paper) or 'adversarial.r1'",
  )
  by_place = adversarial.patches == "hole"
  for name, used in (
    ("mask_aware", adversarial.mask_aware),
    ("patches=hole", by_place),
  ):
    yield (
      used and sees != "completed",
      f"'adversarial.{name}' needs 'discriminator.sees=completed': in the generator's"
      " raw output the patches outside the hole are generated too",
    )
  yield (
    by_place and adversarial.mask_aware,
    "'adversarial.patches=hole' and 'adversarial.mask_aware' exclude each other",
  )
  yield (
    adversarial.mask_aware and config.discriminator.scales > 1,
    "'adversarial.mask_aware' needs 'discriminator.scales=1'",
  )
  yield (
    adversarial.r1_every > 1 and not adversarial.r1,
    "'adversarial.r1_every' needs 'adversarial.r1'",
  )
  yield (
    weights.feature_matching and not weights.adversarial,
    "'loss_weights.feature_matching' needs 'loss_weights.adversarial', without which"
    " the discriminator is not trained",
  )
  unknown_parts = set(filter(None, adversarial.diff_augment.split(",")))
  unknown_parts -= set(DIFF_AUGMENTS)
  yield (
    unknown_parts,
    f"'adversarial.diff_augment' has {', '.join(sorted(unknown_parts))}; it may have"
    f" {', '.join(DIFF_AUGMENTS)}",
  )


def _discriminator_rules(config: Config) -> _Rules:
  sees, size = config.discriminator.sees, config.data.image_size
  yield (
    sees == "patch" and config.model.predict != "patch",
    "'discriminator.sees=patch' needs 'model.predict=patch'",
  )
  depth = config.discriminator.depth
  side = size // 2 if sees == "patch" else size
  side //= 2 ** (config.discriminator.scales - 1)
  yield (
    side < 3 * 2**depth,
    f"'discriminator.depth' {depth} needs at least {3 * 2**depth} pixels a side, and"
    f" the discriminator's smallest input has {side}",
  )
