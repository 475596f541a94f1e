-- Transactions counted by day and by the bins of the export's training: what `bnpl-shadow drift` reads.
-- A row tells what the offsets from `block` to before `counted_to` of one partition hold of one feature on one day. Who
-- counted further replaces it, so that a record read again is not counted again. The block is insert's unit: a block of
-- rows is stored whole or not at all, which is why the table has no partitions.
-- `value` is empty for a feature, whose cells are below, the bins, above, missing, unseen. It is an unseen category for a
-- column: then `counts` has one number.
CREATE TABLE IF NOT EXISTS drift_counts
(
    artifact_sha256  LowCardinality(String),
    topic_id         LowCardinality(String),
    source_partition Int32,
    block            Int64,
    day              Date,
    name             LowCardinality(String),
    value            String,
    counted_to       Int64,
    counts           Array(Int64),
    total            Float64,
    squares          Float64
)
ENGINE = ReplacingMergeTree(counted_to)
ORDER BY (artifact_sha256, topic_id, source_partition, block, day, name, value)
