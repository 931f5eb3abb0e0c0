-- Accepted documents. The envelope is kept for the newest, the newest applied and the newest proven one; the rest is history.
CREATE TABLE desired (
    epoch       INTEGER NOT NULL,
    counter     INTEGER NOT NULL,
    digest      TEXT    NOT NULL,
    accepted_at TEXT    NOT NULL,
    applied_at  TEXT,
    proven_at   TEXT,
    failed_at   TEXT,
    step        TEXT    NOT NULL,
    envelope    BLOB,
    PRIMARY KEY (epoch, counter)
) STRICT;

-- The highest generation ever accepted: one row, whose digest "seal" tells a damaged value.
CREATE TABLE highest (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    epoch   INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    digest  TEXT    NOT NULL,
    seal    TEXT    NOT NULL
) STRICT;

-- Documents that failed for good, by content.
CREATE TABLE failed (
    digest  TEXT PRIMARY KEY,
    at      TEXT NOT NULL,
    problem TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Objects that were applied, or, without a digest, may have been.
CREATE TABLE inventory (
    api_group   TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    namespace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    api_version TEXT    NOT NULL,
    app         TEXT    NOT NULL,
    digest      TEXT,
    keep        INTEGER NOT NULL,
    PRIMARY KEY (api_group, kind, namespace, name)
) STRICT, WITHOUT ROWID;

-- Events that the hub has not acknowledged.
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY,
    severity INTEGER NOT NULL,
    payload  BLOB    NOT NULL
) STRICT;

-- Single values: event_sequence, events_dropped, time_floor, quarantined, inventory_seal.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
