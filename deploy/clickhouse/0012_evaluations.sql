-- Evaluations as `bnpl-shadow evaluate --store` printed them and `evaluate --every` made them, never changed: the newest
-- `evaluated_at` of the same artifact version, label and as_of counts. `document` is what `evaluate --json` prints, with
-- its SHA-256, by which a promotion names a dossier; `promote` and `says` are of its recommendation.
CREATE TABLE IF NOT EXISTS evaluations
(
    artifact_version LowCardinality(String),
    label            LowCardinality(String),
    as_of            DateTime64(6, 'UTC'),
    evaluated_at     DateTime64(6, 'UTC'),
    since            Nullable(DateTime64(6, 'UTC')),
    until            Nullable(DateTime64(6, 'UTC')),
    promote          LowCardinality(Nullable(String)),
    says             String,
    sha256           FixedString(64),
    document         String CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY (artifact_version, label, as_of, evaluated_at)
