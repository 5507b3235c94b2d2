"""The linear probe: against scikit-learn, and where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder.apps.probe import linear as probe


def examples(count, size, classes, seed=0):
  """Returns features of unlike scales, and classes that depend on them with noise."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(count, size)) * rng.uniform(0.1, 10, size) + 3
  logits = (features - 3) @ rng.normal(size=(size, classes)) / size**0.5
  labels = (logits + 3 * rng.normal(size=(count, classes))).argmax(axis=1)
  return features.astype(np.float32), labels


@pytest.mark.parametrize("size", [5, 100])  # fewer and more than examples
@pytest.mark.parametrize("penalty", [1.0, 1e-3])
def test_against_scikit_learn(size, penalty):
  linear_model = pytest.importorskip("sklearn.linear_model")
  features, labels = examples(60, size, 3)
  (linear,) = probe.fit(features, labels, 3, [penalty])
  standard = (features.astype(np.float64) - linear.mean) / linear.scale
  np.testing.assert_allclose(standard.std(axis=0), 1)
  reference = linear_model.LogisticRegression(
    C=1 / (penalty * len(labels)), tol=1e-8, max_iter=10_000
  ).fit(standard, labels)
  np.testing.assert_allclose(linear.weights.T, reference.coef_, atol=3e-3)
  np.testing.assert_allclose(
    jax.nn.softmax(linear.scores(features)),
    reference.predict_proba(standard),
    atol=1e-3,
  )


@pytest.mark.parametrize("size", [5, 100])
def test_the_gradient_of_the_loss_is_zero_at_the_end(size):
  features, labels = examples(60, size, 3)
  penalties = [1.0, 0.1, 1e-2]
  for penalty, linear in zip(
    penalties, probe.fit(features, labels, 3, penalties), strict=True
  ):
    with jax.enable_x64(True):
      x = jnp.asarray((features - linear.mean) / linear.scale)

      def loss(weights, bias, x=x, penalty=penalty):
        likely = jax.nn.log_softmax(x @ weights + bias[None])
        error = -jnp.mean(likely[jnp.arange(len(labels)), labels])
        return error + penalty / 2 * jnp.sum(jnp.square(weights))

      slopes = jax.grad(loss, (0, 1))(
        jnp.asarray(linear.weights), jnp.asarray(linear.bias)
      )
      assert max(float(jnp.abs(slope).max()) for slope in slopes) < 1e-4


def test_separate_classes_are_separated():
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(4), 30)
  features = 0.1 * rng.normal(size=(120, 50)).astype(np.float32)
  features[np.arange(120), labels] += 3
  test = probe.stratified(labels, 0.25, 0)
  assert probe.probe(features, labels, test).correct.mean() == 1


@pytest.mark.parametrize("size", [3, 300])
def test_random_labels_are_guessed(size):
  rng = np.random.default_rng(1)
  labels = rng.integers(0, 2, 400)
  features = rng.normal(size=(400, size))
  test = probe.stratified(labels, 0.5, 0)
  found = probe.probe(features, labels, test)
  # Four standard deviations of 200 throws of a coin.
  assert abs(found.correct.mean() - 0.5) < 4 * (0.25 / 200) ** 0.5


def test_the_classifier_does_not_depend_on_the_test_examples():
  features, labels = examples(80, 20, 2)
  test = probe.stratified(labels, 0.25, 0)
  found = probe.probe(features, labels, test)
  changed, wrong = features.copy(), labels.copy()
  changed[test] = 1000
  wrong[test] = 1 - labels[test]
  again = probe.probe(changed, wrong, test)
  np.testing.assert_array_equal(again.linear.weights, found.linear.weights)
  assert again.penalty == found.penalty
  opposite = probe.probe(features, wrong, test).correct
  np.testing.assert_array_equal(opposite, ~found.correct)


def test_a_constant_feature_changes_nothing():
  features, labels = examples(60, 5, 2)
  features = np.hstack([features, np.full((60, 1), 0.1, np.float32)])
  (linear,) = probe.fit(features, labels, 2, [0.1])
  other = features.copy()
  other[:, 5] = 7
  np.testing.assert_array_equal(linear.scores(features), linear.scores(other))
  assert np.isfinite(linear.weights).all()


def test_the_split_has_its_share_of_each_class():
  labels = np.array([0] * 40 + [1] * 8 + [2] * 2)
  test = probe.stratified(labels, 0.25, 0)
  np.testing.assert_array_equal(np.bincount(labels[test]), [10, 2, 1])
  np.testing.assert_array_equal(test, probe.stratified(labels, 0.25, 0))
  assert (test != probe.stratified(labels, 0.25, 1)).any()
  assert np.bincount(labels[~probe.stratified(labels, 0.99, 0)]).min() == 1


def test_majority():
  labels = np.array([0, 1, 1, 1, 0, 0, 0])
  test = np.array([0, 0, 0, 0, 1, 1, 1], bool)
  np.testing.assert_array_equal(probe.majority(labels, test), [False] * 3)
