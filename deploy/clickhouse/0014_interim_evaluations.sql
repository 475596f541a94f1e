-- `evaluate --every` makes an evaluation whenever something is new. The first of a day stays; those after it are interim, and go
-- thirty days after they were made.
ALTER TABLE evaluations
    ADD COLUMN IF NOT EXISTS interim Bool DEFAULT false,
    MODIFY TTL toDateTime(evaluated_at) + INTERVAL 30 DAY DELETE WHERE interim
