-- Values that single nodes can read: their keys, what operators sealed to them, and what the hub sealed to the nodes of a site.

-- X25519 public key in base64url; none before the node has said one.
ALTER TABLE nodes ADD COLUMN sealing_key TEXT;

CREATE TABLE secrets (
    name       TEXT PRIMARY KEY NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

-- Never a value, only what the node alone can open (JSON of Sealed).
CREATE TABLE sealed_secrets (
    secret     TEXT NOT NULL REFERENCES secrets (name) ON DELETE CASCADE,
    node       TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    sealed     TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (secret, node)
);
CREATE INDEX sealed_secrets_by_node ON sealed_secrets (node);

-- The join secret of a site, sealed to one of its nodes. Kept so that the same node gets the same bytes each time.
CREATE TABLE site_tokens (
    node   TEXT PRIMARY KEY NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    site   TEXT NOT NULL,
    sealed TEXT NOT NULL
);

-- The server that began the cluster of a site: it stays the one, whoever enrols later.
CREATE TABLE sites (
    name         TEXT PRIMARY KEY NOT NULL,
    first_server TEXT NOT NULL
);
