CREATE STREAM IF NOT EXISTS service_count_samples (
  -- How many services there were, sampled every few minutes, for 90 days: what charts over time are drawn from.
  -- One sample may arrive twice: group by sampled_at, service_type and status.
  sampled_at    datetime64(3, 'UTC'),
  service_type  string,
  status        string,
  service_count int64
) PARTITION BY to_YYYYMM(sampled_at) ORDER BY (sampled_at, service_type, status)
TTL to_datetime(sampled_at) + INTERVAL 90 DAY;
