-- Evidence of quiet attestations is kept for a time and then pruned. What stays for ever: the statement's row (so that another one
-- with its sequence still is a fork), its leaf in the log, and a leaf of type `collector` for each batch that was pruned, whose digest
-- is over the payloads of the batch; `pruned` is that leaf's id. The receipt is made again from the row when it is asked for.
ALTER TABLE attestations ADD COLUMN pruned INTEGER;

-- The only way past the guard of the evidence: a permit for one attestation, written, used and taken back in one transaction.
CREATE TABLE pruning (
    payload BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
DROP TRIGGER evidence_no_delete;
CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence
WHEN OLD.kind <> 'attestation' OR NOT EXISTS (SELECT 1 FROM pruning WHERE payload = OLD.sha256)
BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;

-- How far each node's statements have been looked at.
CREATE TABLE retained (
    node     TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The size of the store on each day, for the forecast.
CREATE TABLE store_sizes (
    day   INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL
) STRICT;
