-- When a document entered the phases that can be told by no other column.
ALTER TABLE desired ADD COLUMN switching_at    TEXT;
ALTER TABLE desired ADD COLUMN applying_at     TEXT;
ALTER TABLE desired ADD COLUMN rolling_back_at TEXT;
ALTER TABLE desired ADD COLUMN rolled_back_at  TEXT;

-- New single values: "running", the digest of the document whose objects are in the cluster, and "pause".
INSERT INTO meta (name, value)
    SELECT 'running', digest FROM desired WHERE applied_at IS NOT NULL ORDER BY epoch DESC, counter DESC LIMIT 1;

-- Nothing read it.
DELETE FROM meta WHERE name = 'time_floor';

-- Hash of the fields that Holdfast owns in an object, as the API server told it after the last write.
ALTER TABLE inventory ADD COLUMN fingerprint INTEGER;
