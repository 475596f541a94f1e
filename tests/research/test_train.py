"""Training: the same seed gives the same scores, no model sees its future, the documents tell the truth."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from trained_set import Trained, simulated

from consumer.cli.train import command
from consumer.errors import ArtifactError
from consumer.research.dataset import DatasetError, make_dataset, read_dataset, read_rows, split_by_time
from consumer.research.measures import calibration, discrimination, frozen_bins, ranking
from consumer.research.production import rules_flags, train
from consumer.research.simulate import SimulationConfig, json_lines
from consumer.research.training import flag_threshold
from consumer.scoring.artifacts import estimator_scores, members
from consumer.scoring.features import FEATURE_NAMES, NUMERIC_FEATURES


def test_the_same_seed_gives_the_same_scores(trained: Trained) -> None:
    again = train(trained.dataset, trained.request).model_set
    features = again.engineer.engineer(trained.dataset.batch).matrix
    first, second = trained.model_set.scores(features), again.scores(features)
    for entry in again.models:
        assert np.abs(first[entry.name] - second[entry.name]).max() <= 1e-9
    assert [entry.flag_threshold for entry in again.models] == pytest.approx(
        [entry.flag_threshold for entry in trained.model_set.models], abs=1e-9
    )


def test_periods_follow_each_other_and_cover_everything(trained: Trained) -> None:
    split, times = split_by_time(trained.dataset), trained.dataset.times
    train_, calibrate, validate = split.train, split.calibrate, split.validate
    assert (train_.first, validate.last) == (0, len(times))
    assert times[train_.rows].max() < calibrate.start <= times[calibrate.rows].min()
    assert times[calibrate.rows].max() < validate.start <= times[validate.rows].min()
    assert calibrate.start % 86_400_000 == validate.start % 86_400_000 == 0


def test_outcomes_of_the_last_period_change_no_score_and_no_threshold(trained: Trained) -> None:
    label = trained.dataset.label.copy()
    last = split_by_time(trained.dataset).validate.rows
    label[last] = 1 - label[last]
    blind = train(replace(trained.dataset, label=label), trained.request)
    features = blind.model_set.engineer.engineer(trained.dataset.batch).matrix
    scores = blind.model_set.scores(features)
    for entry, before in zip(blind.model_set.models, trained.model_set.models, strict=True):
        assert np.abs(scores[entry.name] - trained.model_set.scores(features)[entry.name]).max() <= 1e-9
        assert entry.flag_threshold == pytest.approx(before.flag_threshold, abs=1e-9)
        # the figures do change: ranking by the wrong way round
        now, then = blind.baseline["models"][entry.name], trained.training.baseline["models"][entry.name]
        assert now["auc"] == pytest.approx(1 - then["auc"], abs=1e-9)


def test_models_rank_defaulters_about_as_well_as_research_said(trained: Trained) -> None:
    for figures in trained.training.baseline["models"].values():
        assert 0.54 < figures["auc"] < 0.70
        assert figures["auc_low"] < figures["auc"] < figures["auc_high"]
        assert 0.03 < figures["brier"] < 0.07
        assert 0.3 < figures["calibration_slope"] < 2.0


def test_thresholds_flag_the_rules_own_share_of_the_calibration_period(trained: Trained) -> None:
    rows = split_by_time(trained.dataset).calibrate.rows
    features = trained.model_set.engineer.engineer(trained.dataset.batch).matrix[rows]
    flagged = rules_flags(trained.request.rules, trained.dataset)[rows].mean()
    for entry in trained.model_set.models:
        share = (trained.model_set.scores(features)[entry.name] >= entry.flag_threshold).mean()
        assert share == pytest.approx(flagged, abs=2 / len(features))


def test_scores_are_a_sigmoid_of_one_linear_form(trained: Trained) -> None:
    """What lets the service fold all models into one matrix product."""
    features = trained.model_set.engineer.engineer(trained.dataset.batch.slice(0, 500)).matrix
    matrix = trained.model_set.preprocess(features)
    voices = []
    for entry in trained.model_set.models[:3]:
        (calibrated,) = entry.estimator.calibrated_classifiers_
        (sigmoid,) = calibrated.calibrators
        decision = matrix @ calibrated.estimator.coef_.ravel() + calibrated.estimator.intercept_
        voices.append(expit(-(sigmoid.a_ * decision + sigmoid.b_)))
        assert np.abs(voices[-1] - estimator_scores(entry, matrix)).max() <= 1e-12
    ensemble = trained.model_set.models[3]
    assert [name for name, *_ in members(ensemble.estimator)] == ["ridge", "logistic", "elastic"]
    assert np.abs(np.mean(voices, axis=0) - estimator_scores(ensemble, matrix)).max() <= 1e-12


def test_the_preprocessor_puts_the_scaled_columns_first(trained: Trained) -> None:
    names = list(trained.model_set.preprocessor.get_feature_names_out())
    assert names[:5] == [f"num__{name}" for name in NUMERIC_FEATURES]
    assert names[5:] == [f"cat__{name}" for name in FEATURE_NAMES if name not in NUMERIC_FEATURES]


def test_metadata_has_the_shape_the_contract_names(trained: Trained) -> None:
    metadata = orjson.loads((trained.directory / "bnpl_multi_model_metadata_t1.json").read_bytes())
    assert list(metadata["models"]) == ["ridge", "logistic", "elastic", "ensemble"]
    for facts in metadata["models"].values():
        assert {"auc", "discrimination_ratio", "role", "score_kind", "calibrated", "flag_threshold"} <= set(facts)
        assert facts["calibrated"] is True
    ensemble = metadata["models"]["ensemble"]
    assert (ensemble["type"], ensemble["voting"]) == ("VotingClassifier", "soft")
    assert ensemble["estimators"] == ["ridge", "logistic", "elastic"]
    shared = metadata["shared_artifacts"]
    assert shared["feature_names"] == list(FEATURE_NAMES)
    assert shared["numeric_features"] == list(NUMERIC_FEATURES)
    assert sorted(shared["numeric_features"] + shared["categorical_features"]) == sorted(FEATURE_NAMES)
    assert shared["total_features"] == 36
    assert metadata["deployment_strategy"] == {
        "mode": "shadow_multi_model",
        "champion": "ridge",
        "challengers": ["logistic", "elastic", "ensemble"],
        "baseline_discrimination": 2.8,
        "target_improvement": 2.8,
    }


def test_training_statistics_describe_the_training_period(trained: Trained) -> None:
    statistics = orjson.loads((trained.directory / "training_stats.json").read_bytes())
    rows = split_by_time(trained.dataset).train.rows
    features = trained.model_set.engineer.engineer(trained.dataset.batch).matrix[rows]
    assert statistics["sample_count"] == len(features)
    assert statistics["default_rate"] == pytest.approx(trained.dataset.label[rows].mean())
    for at, name in enumerate(FEATURE_NAMES):
        facts = statistics["features"][name]
        assert facts["mean"] == pytest.approx(features[:, at].mean())
        assert facts["std"] == pytest.approx(features[:, at].std())
        assert sum(facts["bin_counts"]) == len(features)
        assert len(facts["bin_edges"]) == len(facts["bin_counts"]) + 1
    for counts in statistics["categories"].values():
        assert sum(counts.values()) == len(features)
    assert set(statistics["scores"]) == {"ridge", "logistic", "elastic", "ensemble"}


def test_baseline_metrics_keep_the_research_baseline_beside_what_was_measured(trained: Trained) -> None:
    baseline = orjson.loads((trained.directory / "baseline_metrics.json").read_bytes())
    rules = baseline["rules"]
    assert (rules["discrimination_ratio"], rules["high_risk_default_rate"]) == (2.8, 0.09)
    assert rules["low_risk_default_rate"] == 0.032
    assert baseline["targets"] == {"minimum": 1.0, "success": 2.8, "acceptable": [1.5, 2.8]}
    label = trained.dataset.label[split_by_time(trained.dataset).validate.rows]
    flagged = rules_flags(trained.request.rules, trained.dataset)[split_by_time(trained.dataset).validate.rows]
    measured = rules["measured"]["discrimination_ratio"]
    assert measured == pytest.approx(label[flagged].mean() / label[~flagged].mean())


def test_the_card_says_what_the_set_is_for_and_how_good_it_is(trained: Trained) -> None:
    card = (trained.directory / "MODEL_CARD.md").read_text()
    ridge = trained.training.baseline["models"]["ridge"]
    assert f"{ridge['auc']:.3f} ({ridge['auc_low']:.3f}–{ridge['auc_high']:.3f})" in card
    assert "Simulated for a test." in card
    assert "protected basis" in card
    assert "advisory" in card
    assert f"train {trained.events.name} --version t1 --seed 3" in card


def test_auc_interval_follows_delong_and_the_ratio_follows_katz() -> None:
    rng = np.random.default_rng(1)
    label = (rng.random(4_000) < 0.1).astype(np.int64)
    scores = np.round(rng.normal(0.4 * label), 1)  # with ties
    found = ranking(label, scores)
    assert found["auc"] == pytest.approx(roc_auc_score(label, scores), abs=1e-12)
    resampled = []
    for _ in range(400):
        rows = rng.integers(0, len(label), len(label))
        resampled.append(roc_auc_score(label[rows], scores[rows]))
    assert (found["auc_high"] - found["auc"]) / norm.ppf(0.975) == pytest.approx(np.std(resampled), rel=0.15)
    flagged = np.repeat([True, False], 1000)
    outcome = np.concatenate([np.arange(1000) < 90, np.arange(1000) < 32]).astype(np.int64)
    ratio = discrimination(outcome, flagged)
    assert ratio["discrimination_ratio"] == pytest.approx(2.8125)
    assert (ratio["discrimination_low"], ratio["discrimination_high"]) == pytest.approx((1.90, 4.17), abs=0.01)
    assert ratio["enough"] is False


def test_a_ratio_without_defaults_on_one_side_is_null_not_infinite() -> None:
    facts = discrimination(np.array([1, 1, 0, 0]), np.array([True, True, False, False]))
    assert facts["discrimination_ratio"] is None


def test_calibration_of_true_probabilities_has_slope_one() -> None:
    rng = np.random.default_rng(2)
    scores = expit(rng.normal(-2, 1, 60_000))
    label = (rng.random(60_000) < scores).astype(np.int64)
    found = calibration(label, scores)
    assert found["calibration_slope"] == pytest.approx(1, abs=0.06)
    assert found["calibration_intercept"] == pytest.approx(0, abs=0.12)


def test_bins_hold_tenths_and_few_values_get_a_bin_each() -> None:
    even = frozen_bins(np.arange(1_000, dtype=float))
    assert even["bin_counts"] == [100] * 10
    few = frozen_bins(np.array([4.0, 4, 4, 6, 12, 12]))
    assert few["bin_counts"] == [3, 1, 2]
    assert np.histogram([4.0, 4, 4, 6, 12, 12], few["bin_edges"])[0].tolist() == [3, 1, 2]


def test_a_threshold_flags_the_share_it_was_made_for() -> None:
    scores = np.random.default_rng(3).permutation(np.arange(1_000) / 1_000)
    assert (scores >= flag_threshold(scores, 0.038)).sum() == 38


def test_rows_without_outcome_are_left_out_and_counted() -> None:
    batch = simulated(SimulationConfig(events=100))
    labels = np.array([1, 0, -1, -1] * 25)
    dataset = make_dataset(batch, labels, ())
    assert (len(dataset.label), dataset.unlabelled) == (50, 50)
    assert (np.diff(dataset.times) >= 0).all()


def test_too_few_defaults_are_refused_with_the_way_out() -> None:
    batch = simulated(SimulationConfig(events=400, days=30))
    dataset = make_dataset(batch, np.arange(400) % 40 == 0, ())
    with pytest.raises(DatasetError, match="more events or more days"):
        split_by_time(dataset)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json", "is not JSON"),
        (b"[1, 2]", "is not a JSON object"),
        (b'{"transaction_id": "x"}', "field customer_id is missing"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: bytes, fault: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json_lines(simulated(SimulationConfig(events=7))) + line + b"\n")
    with pytest.raises(DatasetError, match=rf"bad\.jsonl line 8.*{fault}"):
        read_dataset([path])


def test_an_impossible_value_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = json_lines(simulated(SimulationConfig(events=7))).splitlines()
    lines[4] = orjson.dumps(orjson.loads(lines[4]) | {"amount": -5.0})
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DatasetError, match=r"bad\.jsonl line 5: amount is negative"):
        read_dataset([path])


@pytest.mark.parametrize("start", [date(2001, 2, 3), date(2090, 2, 3)])
def test_research_data_may_be_of_any_age_whatever_todays_date(tmp_path: Path, start: date) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(json_lines(simulated(SimulationConfig(events=50, start=start))))
    assert len(read_rows([path])[1]) == 50


def test_a_time_in_the_wrong_unit_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = json_lines(simulated(SimulationConfig(events=7))).splitlines()
    microseconds = 1_780_000_000_000_000
    lines[2] = orjson.dumps(orjson.loads(lines[2]) | {"transaction_timestamp": microseconds})
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DatasetError, match=r"bad\.jsonl line 3: transaction_timestamp lies in the future"):
        read_dataset([path])


def test_a_cut_off_gzip_file_is_an_error_and_not_a_short_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(json_lines(simulated(SimulationConfig(events=200))))[:-200])
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset([path])


def test_an_export_is_never_overwritten_by_accident(trained: Trained) -> None:
    arguments = [str(trained.events), "--version", "t1", "--out", str(trained.directory.parent)]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, ArtifactError)
    assert "exports are never changed in place" in str(result.exception)
