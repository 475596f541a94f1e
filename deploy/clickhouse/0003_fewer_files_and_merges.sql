-- What a backlog costs ClickHouse. A part up to 256 MiB is one data file instead of about a hundred: creating those took
-- longer than writing their rows. And merges take at least ten parts at once: most of the work of an insert was to merge
-- its part again and again with few others.
ALTER TABLE shadow_scores MODIFY SETTING min_bytes_for_wide_part = 268435456, min_parts_to_merge_at_once = 10
