-- Keys that nodes gave up. What was signed with one before counts until the key that replaced it has signed.
CREATE TABLE former_keys (
    node       TEXT NOT NULL REFERENCES nodes (id),
    public_key TEXT NOT NULL,
    replaced   INTEGER NOT NULL,
    PRIMARY KEY (node, public_key)
) STRICT, WITHOUT ROWID;

-- The newest snapshot that a node named while it could not list every difference: asked for until it is here. The file lies
-- below the state directory by its digest; `held` says that it was read whole and gives the attested tree.
CREATE TABLE snapshots (
    node     TEXT PRIMARY KEY REFERENCES nodes (id),
    sha256   BLOB NOT NULL,
    size     INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    tree     BLOB NOT NULL,
    image    BLOB NOT NULL,
    named    INTEGER NOT NULL,
    held     INTEGER,
    total    INTEGER
) STRICT, WITHOUT ROWID;
