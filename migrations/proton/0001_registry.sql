-- The registry: what people query. Everything here is derived from the ledger and can be rebuilt from it, so
-- change services through the API, never here.
--
-- Read it as table(pollers): FROM pollers alone is a query for what is yet to come, and never ends.
-- The columns mean what they mean in SQLite, where every one is explained; times are datetime64(3, 'UTC').
-- A keyed stream shows the row with the highest _tp_time of each key: the moment when the row's revision was made,
-- and a little later for each time that the revision was written again. Rows are always written whole.
-- Keyed streams are one partition, as Proton keeps a row of each key in every partition that the key was ever
-- written to. They have no TTL, as Proton counts a key's age from its last change.
-- The row of a service that was purged stays, empty but for its key, with the status 'purged': leave it out.
-- Every statement may be run again; a stream that is there already is left as it is.

CREATE STREAM IF NOT EXISTS pollers (
  -- One row per poller, the root of its agents and checkers; deleted ones stay with status 'deleted'.
  poller_id                  string,
  component_id               string,
  label                      string,
  site                       string,
  labels                     string,
  metadata                   string,
  registration_source        string,
  status                     string,
  status_reason              string,
  approval                   string,
  spiffe_identity            string,
  heartbeat_interval_seconds int64,
  first_registered           datetime64(3, 'UTC'),
  first_seen                 nullable(datetime64(3, 'UTC')),
  last_seen                  nullable(datetime64(3, 'UTC')),
  is_healthy                 nullable(bool),
  version                    string,
  agent_count                int64,
  checker_count              int64,
  package_id                 string,
  created_by                 string,
  updated_at                 datetime64(3, 'UTC'),
  incarnation                int64,
  epoch                      int64,
  revision                   int64
) PARTITION BY tuple() PRIMARY KEY (poller_id)
SETTINGS mode='versioned_kv', version_column='_tp_time';

CREATE STREAM IF NOT EXISTS agents (
  -- One row per agent; its parent is a poller.
  agent_id                   string,
  poller_id                  string,
  component_id               string,
  label                      string,
  site                       string,
  labels                     string,
  metadata                   string,
  registration_source        string,
  status                     string,
  status_reason              string,
  approval                   string,
  spiffe_identity            string,
  heartbeat_interval_seconds int64,
  first_registered           datetime64(3, 'UTC'),
  first_seen                 nullable(datetime64(3, 'UTC')),
  last_seen                  nullable(datetime64(3, 'UTC')),
  is_healthy                 nullable(bool),
  version                    string,
  checker_count              int64,
  package_id                 string,
  created_by                 string,
  updated_at                 datetime64(3, 'UTC'),
  incarnation                int64,
  epoch                      int64,
  revision                   int64
) PARTITION BY tuple() PRIMARY KEY (agent_id)
SETTINGS mode='versioned_kv', version_column='_tp_time';

CREATE STREAM IF NOT EXISTS checkers (
  -- One row per checker; its parent is an agent, and that agent's is poller_id.
  checker_id                 string,
  agent_id                   string,
  poller_id                  string,
  component_id               string,
  label                      string,
  site                       string,
  labels                     string,
  metadata                   string,
  checker_kind               string,
  registration_source        string,
  status                     string,
  status_reason              string,
  approval                   string,
  spiffe_identity            string,
  heartbeat_interval_seconds int64,
  first_registered           datetime64(3, 'UTC'),
  first_seen                 nullable(datetime64(3, 'UTC')),
  last_seen                  nullable(datetime64(3, 'UTC')),
  is_healthy                 nullable(bool),
  version                    string,
  package_id                 string,
  created_by                 string,
  updated_at                 datetime64(3, 'UTC'),
  incarnation                int64,
  epoch                      int64,
  revision                   int64
) PARTITION BY tuple() PRIMARY KEY (checker_id)
SETTINGS mode='versioned_kv', version_column='_tp_time';

CREATE STREAM IF NOT EXISTS edge_packages (
  -- One row per package: one onboarding of one service, from the issue of its token on. Holds no secret.
  package_id       string,
  component_type   string,
  component_id     string,
  label            string,
  parent_type      string,
  parent_id        string,
  poller_id        string,
  site             string,
  status           string,
  generation       int64,
  checker_kind     string,
  metadata         string,
  created_by       string,
  created_at       datetime64(3, 'UTC'),
  token_expires_at datetime64(3, 'UTC'),
  delivered_at     nullable(datetime64(3, 'UTC')),
  delivered_to     nullable(string),
  activated_at     nullable(datetime64(3, 'UTC')),
  activated_from   nullable(string),
  revoked_at       nullable(datetime64(3, 'UTC')),
  deleted_at       nullable(datetime64(3, 'UTC')),
  notes            string,
  updated_at       datetime64(3, 'UTC'),
  epoch            int64,
  revision         int64
) PARTITION BY tuple() PRIMARY KEY (package_id)
SETTINGS mode='versioned_kv', version_column='_tp_time';

CREATE STREAM IF NOT EXISTS service_registration_events (
  -- The audit trail, append-only, for 90 days: what happened to services and packages, and, with an empty
  -- service_id, what happened outside of them. One event may arrive twice: count and list them by event_id.
  event_id            string,
  event_type          string,
  service_type        string,
  service_id          string,
  parent_id           string,
  package_id          string,
  registration_source string,
  actor               string,
  timestamp           datetime64(3, 'UTC'),
  source_ip           string,
  reason              string,
  request_id          string,
  from_status         string,
  to_status           string,
  epoch               int64,
  revision            int64,
  metadata            string
) PARTITION BY to_YYYYMM(timestamp) ORDER BY (service_type, service_id, timestamp)
TTL to_datetime(timestamp) + INTERVAL 90 DAY;

-- How many services there are, by type, status and source. Counted when it is asked for, so it is always right.
-- It reads the past alone, so FROM service_counts ends without table().
CREATE VIEW IF NOT EXISTS service_counts AS
  SELECT 'poller' AS service_type, status, registration_source, count() AS service_count
    FROM (SELECT status, registration_source FROM table(pollers) ORDER BY _tp_time DESC LIMIT 1 BY poller_id)
    WHERE status != 'purged' GROUP BY status, registration_source
  UNION ALL
  SELECT 'agent' AS service_type, status, registration_source, count() AS service_count
    FROM (SELECT status, registration_source FROM table(agents) ORDER BY _tp_time DESC LIMIT 1 BY agent_id)
    WHERE status != 'purged' GROUP BY status, registration_source
  UNION ALL
  SELECT 'checker' AS service_type, status, registration_source, count() AS service_count
    FROM (SELECT status, registration_source FROM table(checkers) ORDER BY _tp_time DESC LIMIT 1 BY checker_id)
    WHERE status != 'purged' GROUP BY status, registration_source;
