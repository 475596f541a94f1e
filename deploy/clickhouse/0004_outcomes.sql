-- What became of transactions: a copy of topic bnpl.outcomes, every version of every label kept.
-- Of one transaction and label the row with the highest (version, observed_at) counts; the others say what was believed
-- before, so that an evaluation as of a day sees what was known then (observed_at <= that day). A redelivered outcome,
-- or one that was sent twice, replaces its row: its key, and so its month, are the same. Read with FINAL.
CREATE TABLE IF NOT EXISTS outcomes
(
    transaction_id     String,
    label              LowCardinality(String),
    defaulted          Bool,
    days_to_resolution Nullable(Int64),
    loss_amount        Nullable(Float64),
    observed_at        DateTime64(3, 'UTC'),
    source             LowCardinality(String),
    version            Int64,
    outcome_partition  Int64,
    outcome_offset     Int64
)
ENGINE = ReplacingMergeTree(outcome_offset)
PARTITION BY toYYYYMM(observed_at)
ORDER BY (transaction_id, label, version, observed_at)
SETTINGS min_bytes_for_wide_part = 268435456, min_parts_to_merge_at_once = 10
