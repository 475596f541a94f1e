-- What the drift service found, one row a window and number: the newest measurement of a window counts. Read with FINAL.
CREATE TABLE IF NOT EXISTS drift_results
(
    artifact_version LowCardinality(String),
    artifact_sha256  LowCardinality(String),
    as_of            Date,
    kind             LowCardinality(String),
    name             LowCardinality(String),
    measured_at      DateTime64(3, 'UTC'),
    rows             Int64,
    state            Nullable(UInt8),
    window_state     Nullable(UInt8),
    psi              Nullable(Float64),
    critical         Nullable(Float64),
    wasserstein      Nullable(Float64),
    jensen_shannon   Nullable(Float64),
    out_of_range     Nullable(Float64),
    unseen           Nullable(Float64),
    missing          Nullable(Float64),
    mean_shift       Nullable(Float64),
    flagged_share    Nullable(Float64),
    flagged_before   Nullable(Float64),
    muted            String,
    not_measured     String
)
ENGINE = ReplacingMergeTree(measured_at)
ORDER BY (artifact_sha256, as_of, kind, name)
