-- Which decision stands, and who made it. Rows of before say what was true then: the rules decided, in shadow. Where
-- `decision` is null (an event of before version 2 that came later) business_decision stands.
ALTER TABLE shadow_scores
    ADD COLUMN IF NOT EXISTS mode LowCardinality(String) DEFAULT 'shadow' AFTER consensus,
    ADD COLUMN IF NOT EXISTS decision LowCardinality(Nullable(String)) DEFAULT business_decision AFTER mode,
    ADD COLUMN IF NOT EXISTS decided_by LowCardinality(String) DEFAULT 'rules' AFTER decision
