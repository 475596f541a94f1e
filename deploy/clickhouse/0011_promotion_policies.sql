-- Promotion policies by the SHA-256 of their file, and when each was first registered: what was fixed before which data.
-- Registering again changes nothing; read with min(registered_at).
CREATE TABLE IF NOT EXISTS promotion_policies
(
    sha256        FixedString(64),
    registered_at DateTime64(3, 'UTC'),
    content       String
)
ENGINE = MergeTree
ORDER BY (sha256, registered_at)
