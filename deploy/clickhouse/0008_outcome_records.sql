-- Which records of bnpl.outcomes were stored, as a set of offsets for each label and partition: reading the topic again
-- adds nothing to it. What it has more than table outcomes was told again and replaced its row.
CREATE MATERIALIZED VIEW IF NOT EXISTS outcome_records
ENGINE = AggregatingMergeTree ORDER BY (label, outcome_partition)
AS SELECT label, outcome_partition, groupBitmapState(toUInt64(outcome_offset)) AS offsets
FROM outcomes
GROUP BY label, outcome_partition
