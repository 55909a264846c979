CREATE TABLE service_count_samples (
  -- How many services there were, sampled every few minutes: what charts over time are drawn from.
  sampled_at    TEXT NOT NULL,
  service_type  TEXT NOT NULL,  -- poller, agent, checker
  status        TEXT NOT NULL,  -- as in the tables of services
  service_count INTEGER NOT NULL,
  PRIMARY KEY (sampled_at, service_type, status)
) WITHOUT ROWID;
