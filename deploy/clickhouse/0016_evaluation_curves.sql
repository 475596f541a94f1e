-- What pages draw of an evaluation's rows: rules and models cut at many shares, ROC curves, distributions of scores, as
-- JSON. Empty for what was stored before there were any; null when no outcome was known.
ALTER TABLE evaluations ADD COLUMN IF NOT EXISTS curves String CODEC(ZSTD(3))
