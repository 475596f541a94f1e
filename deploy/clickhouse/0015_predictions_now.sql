-- What analysts read: one row a prediction, the four research models by name, and what became of the transaction, as
-- known now. shadow_predictions_as_of has the definitions, and every model of the event.
CREATE OR REPLACE VIEW shadow_predictions AS
SELECT
    transaction_id,
    timestamp,
    business_decision,
    business_risk_flag,
    business_risk_score,
    model_scores[indexOf(model_names, 'ridge')] AS ridge_prediction,
    model_scores[indexOf(model_names, 'logistic')] AS logistic_prediction,
    model_scores[indexOf(model_names, 'elastic')] AS elastic_prediction,
    model_scores[indexOf(model_names, 'ensemble')] AS ensemble_prediction,
    consensus AS consensus_prediction,
    champion,
    champion_score,
    actual_default,
    days_to_resolution,
    opportunity_cost,
    amount,
    installment_count,
    checkout_decision,
    mode,
    decision,
    decided_by,
    reason_codes,
    prediction_id,
    artifact_version,
    rule_set_version,
    feature_spec_version,
    source_topic,
    source_partition,
    source_offset
FROM shadow_predictions_as_of(as_of = '2299-12-31 00:00:00')
