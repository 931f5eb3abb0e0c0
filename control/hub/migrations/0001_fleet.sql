-- The first schema: operators, tokens, nodes, releases, documents, reports, audit.
-- Written for SQLite and PostgreSQL alike: TEXT, BIGINT and nothing else. Times are microseconds since 1970 (UTC), JSON is TEXT,
-- digests are 'sha256:...' and truth is 0 or 1.

-- Numbers that only rise: the epoch of the hub and the sequences that must have no holes in their order.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('epoch', 1), ('audit', 0), ('event', 0), ('outbox', 0), ('crl', 0);

CREATE TABLE operators (
    name       TEXT PRIMARY KEY NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'viewer')),
    token_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    id_hash    TEXT PRIMARY KEY NOT NULL,
    operator   TEXT NOT NULL REFERENCES operators (name) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL
);

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('open', 'spent', 'revoked')),
    created_at  BIGINT NOT NULL,
    created_by  TEXT NOT NULL,
    expires_at  BIGINT NOT NULL,
    node_name   TEXT,
    labels      TEXT NOT NULL,
    serial      TEXT,
    -- Set when it is spent: the key it is bound to, and what that key was answered.
    key_digest  TEXT,
    node        TEXT,
    certificate TEXT
);

CREATE TABLE nodes (
    id                     TEXT PRIMARY KEY NOT NULL,
    labels                 TEXT NOT NULL,
    hardware               TEXT NOT NULL,
    enrolled_at            BIGINT NOT NULL,
    key_digest             TEXT NOT NULL,
    certificate_expires_at BIGINT NOT NULL,
    online                 BIGINT NOT NULL DEFAULT 0,
    last_heard_at          BIGINT,
    release_name           TEXT,
    -- The last report, and what was taken out of it.
    status                 TEXT,
    status_sequence        BIGINT
);

-- Every certificate that was ever issued to a node, by the digest of its DER form. Rows outlive their node: a deleted
-- node's certificates stay revoked.
CREATE TABLE certificates (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    serial      TEXT NOT NULL,
    node        TEXT NOT NULL,
    key_digest  TEXT NOT NULL,
    not_after   BIGINT NOT NULL,
    revoked_at  BIGINT
);
CREATE INDEX certificates_by_node ON certificates (node);

CREATE TABLE blobs (
    digest     TEXT PRIMARY KEY NOT NULL,
    size       BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

CREATE TABLE releases (
    name       TEXT PRIMARY KEY NOT NULL,
    digest     TEXT NOT NULL,
    content    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

-- The last counter given to a node of this name. Rows outlive their node: a box that is deleted and comes back under the same
-- name still refuses what is not newer.
CREATE TABLE generations (
    node    TEXT PRIMARY KEY NOT NULL,
    counter BIGINT NOT NULL
);

-- The newest document of each node, signed.
CREATE TABLE documents (
    node           TEXT PRIMARY KEY NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    epoch          BIGINT NOT NULL,
    counter        BIGINT NOT NULL,
    content_digest TEXT NOT NULL,
    envelope       TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);

CREATE TABLE document_blobs (
    node   TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (node, digest)
);

-- What the broker has not taken yet. A row goes only when the broker took what it asks for, and nothing newer came since.
CREATE TABLE outbox (
    node     TEXT PRIMARY KEY NOT NULL,
    action   TEXT NOT NULL CHECK (action IN ('publish', 'forget', 'replace')),
    revision BIGINT NOT NULL
);

CREATE TABLE events (
    position    BIGINT PRIMARY KEY NOT NULL,
    node        TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    sequence    BIGINT NOT NULL,
    digest      TEXT NOT NULL,
    body        TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    UNIQUE (node, sequence, digest)
);

CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY NOT NULL,
    at       BIGINT NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    detail   TEXT NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject);
