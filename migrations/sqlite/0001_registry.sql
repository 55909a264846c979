-- The registry: what people query. Everything here is derived from the ledger and can be rebuilt from it, so
-- change services through the API, never here.
--
-- Times are text, RFC 3339 in UTC with milliseconds (2026-11-23T09:10:11.123Z): they sort as they stand.
-- JSON is text. Booleans are 0, 1 or NULL for unknown. A text that has no value is empty, not NULL.
-- (epoch, revision) orders the versions of a row; an older one never replaces a newer one.
-- There are no foreign keys: rows arrive in the order of their changes, a child's perhaps before its parent's.

CREATE TABLE pollers (
  -- One row per poller, the root of its agents and checkers; deleted ones stay with status 'deleted'.
  poller_id                  TEXT NOT NULL PRIMARY KEY,
  component_id               TEXT NOT NULL,  -- the same as poller_id
  label                      TEXT NOT NULL,
  site                       TEXT NOT NULL,
  labels                     TEXT NOT NULL,  -- JSON object of text
  metadata                   TEXT NOT NULL,  -- JSON object
  registration_source        TEXT NOT NULL,  -- edge_onboarding, k8s_spiffe, config, implicit
  status                     TEXT NOT NULL,  -- pending, active, inactive, revoked, deleted
  status_reason              TEXT NOT NULL,
  approval                   TEXT NOT NULL,  -- none, required, granted, rejected
  spiffe_identity            TEXT NOT NULL,
  heartbeat_interval_seconds INTEGER NOT NULL,
  first_registered           TEXT NOT NULL,
  first_seen                 TEXT,           -- the first heartbeat
  last_seen                  TEXT,           -- the newest heartbeat known here; written in batches
  is_healthy                 INTEGER CHECK (is_healthy IN (0, 1)),
  version                    TEXT NOT NULL,  -- the software's, as its heartbeats tell
  agent_count                INTEGER NOT NULL,
  checker_count              INTEGER NOT NULL,
  package_id                 TEXT NOT NULL,  -- the current package in edge_packages
  created_by                 TEXT NOT NULL,
  updated_at                 TEXT NOT NULL,  -- when this revision was made
  incarnation                INTEGER NOT NULL,  -- grows when the id is used again after a deletion
  epoch                      INTEGER NOT NULL,
  revision                   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX pollers_by_status ON pollers (status);

CREATE TABLE agents (
  -- One row per agent; its parent is a poller. Columns mean what they mean in pollers.
  agent_id                   TEXT NOT NULL PRIMARY KEY,
  poller_id                  TEXT NOT NULL,  -- the parent
  component_id               TEXT NOT NULL,  -- the same as agent_id
  label                      TEXT NOT NULL,
  site                       TEXT NOT NULL,
  labels                     TEXT NOT NULL,
  metadata                   TEXT NOT NULL,
  registration_source        TEXT NOT NULL,
  status                     TEXT NOT NULL,
  status_reason              TEXT NOT NULL,
  approval                   TEXT NOT NULL,
  spiffe_identity            TEXT NOT NULL,
  heartbeat_interval_seconds INTEGER NOT NULL,
  first_registered           TEXT NOT NULL,
  first_seen                 TEXT,
  last_seen                  TEXT,
  is_healthy                 INTEGER CHECK (is_healthy IN (0, 1)),
  version                    TEXT NOT NULL,
  checker_count              INTEGER NOT NULL,
  package_id                 TEXT NOT NULL,
  created_by                 TEXT NOT NULL,
  updated_at                 TEXT NOT NULL,
  incarnation                INTEGER NOT NULL,
  epoch                      INTEGER NOT NULL,
  revision                   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX agents_by_status ON agents (status);
CREATE INDEX agents_by_poller ON agents (poller_id);

CREATE TABLE checkers (
  -- One row per checker; its parent is an agent, and that agent's is poller_id. Columns as in pollers.
  checker_id                 TEXT NOT NULL PRIMARY KEY,
  agent_id                   TEXT NOT NULL,  -- the parent
  poller_id                  TEXT NOT NULL,
  component_id               TEXT NOT NULL,  -- the same as checker_id
  label                      TEXT NOT NULL,
  site                       TEXT NOT NULL,
  labels                     TEXT NOT NULL,
  metadata                   TEXT NOT NULL,
  checker_kind               TEXT NOT NULL,  -- which template its config came from
  registration_source        TEXT NOT NULL,
  status                     TEXT NOT NULL,
  status_reason              TEXT NOT NULL,
  approval                   TEXT NOT NULL,
  spiffe_identity            TEXT NOT NULL,
  heartbeat_interval_seconds INTEGER NOT NULL,
  first_registered           TEXT NOT NULL,
  first_seen                 TEXT,
  last_seen                  TEXT,
  is_healthy                 INTEGER CHECK (is_healthy IN (0, 1)),
  version                    TEXT NOT NULL,
  package_id                 TEXT NOT NULL,
  created_by                 TEXT NOT NULL,
  updated_at                 TEXT NOT NULL,
  incarnation                INTEGER NOT NULL,
  epoch                      INTEGER NOT NULL,
  revision                   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX checkers_by_status ON checkers (status);
CREATE INDEX checkers_by_agent ON checkers (agent_id);
CREATE INDEX checkers_by_poller ON checkers (poller_id);

CREATE TABLE edge_packages (
  -- One row per package: one onboarding of one service, from the issue of its token on. Holds no secret.
  package_id       TEXT NOT NULL PRIMARY KEY,
  component_type   TEXT NOT NULL,  -- poller, agent, checker
  component_id     TEXT NOT NULL,  -- the service's id
  label            TEXT NOT NULL,
  parent_type      TEXT NOT NULL,
  parent_id        TEXT NOT NULL,
  poller_id        TEXT NOT NULL,
  site             TEXT NOT NULL,
  status           TEXT NOT NULL,  -- issued, delivered, activated, expired, revoked, superseded
  generation       INTEGER NOT NULL,  -- counts the packages of one service
  checker_kind     TEXT NOT NULL,
  metadata         TEXT NOT NULL,  -- JSON object
  created_by       TEXT NOT NULL,
  created_at       TEXT NOT NULL,
  token_expires_at TEXT NOT NULL,
  delivered_at     TEXT,
  delivered_to     TEXT,           -- the redeemer as it showed itself
  activated_at     TEXT,
  activated_from   TEXT,
  revoked_at       TEXT,
  deleted_at       TEXT,           -- set: listings no longer show it
  notes            TEXT NOT NULL,
  updated_at       TEXT NOT NULL,
  epoch            INTEGER NOT NULL,  -- the service's, as is revision
  revision         INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX edge_packages_by_status ON edge_packages (status);
CREATE INDEX edge_packages_by_component ON edge_packages (component_type, component_id);

CREATE TABLE service_registration_events (
  -- The audit trail, append-only: what happened to services and packages, and, with an empty service_id, what
  -- happened outside of them. One event may arrive twice; event_id keeps it one row.
  event_id            TEXT NOT NULL PRIMARY KEY,
  event_type          TEXT NOT NULL,  -- registered, issued, delivered, activated, ...
  service_type        TEXT NOT NULL,
  service_id          TEXT NOT NULL,
  parent_id           TEXT NOT NULL,
  package_id          TEXT NOT NULL,
  registration_source TEXT NOT NULL,
  actor               TEXT NOT NULL,  -- the API token's name, or system
  timestamp           TEXT NOT NULL,
  source_ip           TEXT NOT NULL,
  reason              TEXT NOT NULL,
  request_id          TEXT NOT NULL,
  from_status         TEXT NOT NULL,  -- the service's, before and after
  to_status           TEXT NOT NULL,
  epoch               INTEGER NOT NULL,
  revision            INTEGER NOT NULL,
  metadata            TEXT NOT NULL   -- JSON object
);

CREATE INDEX events_by_time ON service_registration_events (timestamp DESC, event_id DESC);
CREATE INDEX events_by_service
  ON service_registration_events (service_type, service_id, timestamp DESC, event_id DESC);
CREATE INDEX events_by_package ON service_registration_events (package_id, timestamp DESC, event_id DESC);

-- How many services there are, by type, status and source. Counted when it is asked for, so it is always right.
CREATE VIEW service_counts AS
  SELECT 'poller' AS service_type, status, registration_source, count(*) AS service_count
    FROM pollers GROUP BY status, registration_source
  UNION ALL
  SELECT 'agent', status, registration_source, count(*) FROM agents GROUP BY status, registration_source
  UNION ALL
  SELECT 'checker', status, registration_source, count(*) FROM checkers GROUP BY status, registration_source;
