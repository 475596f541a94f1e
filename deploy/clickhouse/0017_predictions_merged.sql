-- Predictions with what became of their transactions as it was known at `as_of`: outcomes observed later are not seen.
-- SELECT … FROM shadow_predictions_as_of(as_of = '2026-08-01 00:00:00'). The one place where actual_default,
-- days_to_resolution and opportunity_cost are defined; shadow_predictions is this one as known now.
-- actual_default: true once the current version of any label says so, false once that of full_term says not, else null.
-- opportunity_cost: profit had the champion decided, less the profit of what was decided; 0 where both decide alike, null
-- where that is not known (yet). docs/outcomes.md has the whole definition.
-- Both tables lie in the order of transaction_id, so they are merged as they are read, without a table of hashes.
CREATE OR REPLACE VIEW shadow_predictions_as_of AS
WITH
    (SELECT margin FROM economics ORDER BY recorded_at DESC LIMIT 1) AS margin,
    (SELECT loss_given_default FROM economics ORDER BY recorded_at DESC LIMIT 1) AS loss_given_default,
    coalesce(checkout_decision, scores.decision, business_decision) = 'decline' AS declined,
    business_decision = 'decline' OR models.flag[indexOf(models.name, champion)] AS champion_declines
SELECT
    transaction_id,
    event_time AS timestamp,
    business_decision,
    business_risk_flag,
    business_risk_score,
    models.name AS model_names,
    models.version AS model_versions,
    models.role AS model_roles,
    models.score AS model_scores,
    models.score_kind AS model_score_kinds,
    models.flag AS model_flags,
    models.error AS model_errors,
    consensus,
    champion,
    champion_score,
    actual_default,
    days_to_resolution,
    multiIf(
        champion_declines IS NULL, NULL,
        champion_declines = declined, 0,
        declined OR actual_default IS NULL, NULL,
        actual_default, loss_given_default * amount,
        -margin * amount
    ) AS opportunity_cost,
    amount,
    installment_count,
    checkout_decision,
    mode,
    coalesce(scores.decision, business_decision) AS decision,
    decided_by,
    advisory,
    reason_codes,
    prediction_id,
    artifact_version,
    rule_set_version,
    feature_spec_version,
    scored_at,
    source_topic,
    source_partition,
    source_offset,
    shadow_partition,
    shadow_offset
FROM shadow_scores AS scores FINAL
LEFT JOIN
(
    SELECT
        transaction_id,
        CAST(multiIf(max(defaulted), true, countIf(label = 'full_term') > 0, false, NULL), 'Nullable(Bool)') AS actual_default,
        CAST(if(max(defaulted), minIf(days, defaulted), anyIf(days, label = 'full_term')), 'Nullable(Int32)') AS days_to_resolution
    FROM
    (
        SELECT transaction_id, label, defaulted, days_to_resolution AS days
        FROM outcomes
        WHERE observed_at <= {as_of:DateTime64(3, 'UTC')}
        ORDER BY transaction_id, label, version DESC, observed_at DESC, outcome_offset DESC
        LIMIT 1 BY transaction_id, label
    )
    WHERE defaulted OR label = 'full_term'
    GROUP BY transaction_id
) AS known USING transaction_id
SETTINGS join_algorithm = 'full_sorting_merge,hash'
