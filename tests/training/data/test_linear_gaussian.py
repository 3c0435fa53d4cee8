import numpy as np
import pytest
from scipy.stats import multivariate_normal

from training.config import DataConfig
from training.data import Dataset, LinearGaussian, load_dataset


@pytest.fixture(scope="module")
def drawn() -> Dataset:
    return load_dataset(DataConfig("linear-gaussian"))


def density(dataset: Dataset) -> LinearGaussian:
    assert dataset.density is not None
    return dataset.density


def test_observations_are_floats_taken_as_they_are(drawn: Dataset) -> None:
    assert drawn.train.shape == (50_000, 1, 4, 4)
    assert drawn.test.shape == (10_000, 1, 4, 4)
    assert drawn.train.dtype == np.float32
    assert drawn.maximum is None
    assert drawn.label_count is None
    assert drawn.observations("train") is drawn.train


def test_the_log_likelihood_is_that_of_the_full_covariance(drawn: Dataset) -> None:
    model = density(drawn)
    covariance = model.weight @ model.weight.T + model.std**2 * np.eye(16)
    reference = multivariate_normal(model.bias, covariance).logpdf(
        drawn.test.reshape(-1, 16).astype(np.float64)
    )
    np.testing.assert_allclose(model.log_likelihood(drawn.test), reference, rtol=1e-9)
    assert drawn.log_likelihood == pytest.approx(reference.mean(), abs=1e-9)


def test_a_weight_without_orthogonal_columns_is_no_exception() -> None:
    random = np.random.default_rng(0)
    model = LinearGaussian(random.normal(size=(7, 3)), random.normal(size=7), 0.3)
    observations = random.normal(size=(20, 7))
    covariance = model.weight @ model.weight.T + 0.09 * np.eye(7)
    reference = multivariate_normal(model.bias, covariance).logpdf(observations)
    np.testing.assert_allclose(model.log_likelihood(observations), reference, rtol=1e-9)


def test_the_draws_have_the_moments_of_the_model(drawn: Dataset) -> None:
    model = density(drawn)
    train = drawn.train.reshape(-1, 16)
    np.testing.assert_allclose(train.mean(0), model.bias, atol=0.06)
    covariance = model.weight @ model.weight.T + model.std**2 * np.eye(16)
    np.testing.assert_allclose(np.cov(train.T), covariance, atol=0.15)


def test_the_log_likelihood_is_near_the_negative_entropy(drawn: Dataset) -> None:
    model = density(drawn)
    covariance = model.weight @ model.weight.T + model.std**2 * np.eye(16)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    assert drawn.log_likelihood == pytest.approx(-entropy, abs=0.15)  # 5 standard errors


def test_bayes_rule_holds_with_the_posterior(drawn: Dataset) -> None:
    """ln p(x) = ln p(x given z) + ln p(z) - ln p(z given x) at any z."""
    model = density(drawn)
    item = drawn.test[:1]
    means, covariance = model.posterior(item)
    z = np.array([0.3, -1.0, 0.5, 2.0])
    x = item.reshape(16).astype(np.float64)
    likelihood = multivariate_normal(model.weight @ z + model.bias, model.std**2 * np.eye(16))
    bayes = (
        likelihood.logpdf(x)
        + multivariate_normal(np.zeros(4)).logpdf(z)
        - multivariate_normal(means[0], covariance).logpdf(z)
    )
    assert model.log_likelihood(item)[0] == pytest.approx(bayes, abs=1e-9)


def test_the_posterior_is_diagonal_so_that_a_vae_can_be_exact(drawn: Dataset) -> None:
    _, covariance = density(drawn).posterior(drawn.test[:1])
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)


def test_a_limit_changes_the_mean_with_the_split(drawn: Dataset) -> None:
    few = load_dataset(DataConfig("linear-gaussian", test_limit=10))
    expected = density(drawn).log_likelihood(drawn.test[:10]).mean()
    assert few.log_likelihood == pytest.approx(expected)


def test_another_seed_draws_another_model(drawn: Dataset) -> None:
    other = load_dataset(DataConfig("linear-gaussian", seed=1))
    assert not np.allclose(density(other).weight, density(drawn).weight)
    assert load_dataset(DataConfig("linear-gaussian")).sha256() == drawn.sha256()
