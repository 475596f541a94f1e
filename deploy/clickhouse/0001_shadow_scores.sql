-- One row a prediction: a copy of topic bnpl.shadow-scores.
-- A redelivered event, or a transaction sent twice, replaces its row (the later offset of the topic wins); scores of
-- another model set, rule set or feature spec have another prediction_id and stand beside it. Read with FINAL, or
-- through shadow_predictions.
CREATE TABLE IF NOT EXISTS shadow_scores
(
    prediction_id        String,
    transaction_id       String,
    customer_ref         Nullable(String),
    event_time           DateTime64(3, 'UTC'),
    scored_at            DateTime64(3, 'UTC'),
    amount               Float64,
    installment_count    Int64,
    checkout_decision    LowCardinality(Nullable(String)),
    approval_propensity  Nullable(Float64),
    rule_set_version     LowCardinality(String),
    rule_set_sha256      LowCardinality(String),
    business_decision    LowCardinality(String),
    business_risk_flag   LowCardinality(String),
    business_risk_score  Float64,
    reason_codes         Array(LowCardinality(String)),
    models               Nested
    (
        name       LowCardinality(String),
        version    LowCardinality(String),
        role       LowCardinality(String),
        score      Nullable(Float64),
        score_kind LowCardinality(String),
        flag       Nullable(Bool),
        error      LowCardinality(Nullable(String))
    ),
    champion             LowCardinality(String),
    champion_score       Nullable(Float64),
    consensus            Nullable(Float64),
    feature_spec_version LowCardinality(String),
    artifact_version     LowCardinality(String),
    source_topic         LowCardinality(String),
    source_partition     Int64,
    source_offset        Int64,
    advisory             Bool,
    shadow_partition     Int64,
    shadow_offset        Int64
)
ENGINE = ReplacingMergeTree(shadow_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (transaction_id, prediction_id)
