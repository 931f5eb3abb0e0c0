-- Blobs that are named inside another blob only: the pack of an operating system's image, by its manifest. Who may have the one may have the
-- other, and it is kept as long.
CREATE TABLE blob_parts (
    blob TEXT NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
    part TEXT NOT NULL,
    PRIMARY KEY (blob, part)
);
