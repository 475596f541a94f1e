-- What analysts read: one row a prediction, the four research models by name.
-- Any further model stands in shadow_scores under `models`. Outcomes are not collected yet: their columns are null.
CREATE OR REPLACE VIEW shadow_predictions AS
SELECT
    transaction_id,
    event_time AS timestamp,
    business_decision,
    business_risk_flag,
    business_risk_score,
    models.score[indexOf(models.name, 'ridge')] AS ridge_prediction,
    models.score[indexOf(models.name, 'logistic')] AS logistic_prediction,
    models.score[indexOf(models.name, 'elastic')] AS elastic_prediction,
    models.score[indexOf(models.name, 'ensemble')] AS ensemble_prediction,
    consensus AS consensus_prediction,
    champion,
    champion_score,
    CAST(NULL, 'Nullable(Bool)') AS actual_default,
    CAST(NULL, 'Nullable(Int32)') AS days_to_resolution,
    CAST(NULL, 'Nullable(Float64)') AS opportunity_cost,
    amount,
    installment_count,
    reason_codes,
    prediction_id,
    artifact_version,
    rule_set_version,
    feature_spec_version,
    source_topic,
    source_partition,
    source_offset
FROM shadow_scores FINAL
