-- The store's tables. Readable with plain SQLite; docs/store.md has queries to copy.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One growing list of independent samples per (backend identity, model, prompt, sampling parameters).
CREATE TABLE pools (
    id       INTEGER PRIMARY KEY,
    key      TEXT NOT NULL UNIQUE,          -- SHA-256 of identity and request
    identity TEXT NOT NULL,                 -- JSON: backend kind, endpoint, model
    request  TEXT NOT NULL,                 -- JSON: messages or prompt, prefix, sampling parameters
    created  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- Append-only; `seq` is the order of arrival.
CREATE TABLE samples (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    pool     INTEGER NOT NULL REFERENCES pools (id),
    idx      INTEGER NOT NULL,
    text     TEXT NOT NULL,
    finish   TEXT NOT NULL,
    stop     TEXT,
    reasoning TEXT NOT NULL DEFAULT '',
    logprobs TEXT,                          -- JSON: [[token, logprob, [[token, logprob], ...]], ...]
    usage    TEXT NOT NULL,                 -- JSON, as in results.json; money as a decimal string
    created  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (pool, idx)
);

-- Calls that gave no sample, and what they cost.
CREATE TABLE attempts (
    id      INTEGER PRIMARY KEY,
    pool    INTEGER NOT NULL REFERENCES pools (id),
    idx     INTEGER NOT NULL,
    kind    TEXT NOT NULL,                  -- cancelled, failed, retried, duplicate
    error   TEXT NOT NULL DEFAULT '',
    usage   TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX attempts_by_pool ON attempts (pool, idx);

-- Who is sampling what right now; rows of dead owners are taken over.
CREATE TABLE owners (
    id      INTEGER PRIMARY KEY,
    host    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    started TEXT NOT NULL,                  -- tells a process from a later one with the same number
    beat    REAL NOT NULL                   -- Unix time of its last sign of life
);
CREATE TABLE claims (
    pool  INTEGER NOT NULL,
    idx   INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    PRIMARY KEY (pool, idx)
) WITHOUT ROWID;

-- What was computed once: verdicts of executions, reference outputs, grades.
CREATE TABLE memory (
    kind  TEXT NOT NULL,
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
