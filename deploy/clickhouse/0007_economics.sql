-- What a decision is worth: BNPL_MARGIN and BNPL_LOSS_GIVEN_DEFAULT as `bnpl-shadow migrate` found them, a row for each
-- change. The newest row counts.
CREATE TABLE IF NOT EXISTS economics
(
    margin             Float64,
    loss_given_default Float64,
    recorded_at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY recorded_at
