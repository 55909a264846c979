"""NATS: the embedded server, the connection, and everything that is kept or carried by JetStream.

- `server` runs nats-server as a child of the daemon (`process`: which program, whose process; `serverlog`)
- `connection` is one link to NATS that comes back by itself (`dial`, `subscription`, `inbox`)
- `jetstream` makes raw JetStream requests: publish with compare-and-swap, read, stream and consumer API
- `names` knows every stream, bucket and subject, `layout` how each is set up, `schema` brings a server there
- `pull` keeps one standing pull request on a consumer; `tail` and `feeds` build on it
- `bucket` is a key-value bucket as plain functions
- `meta`, `ledger`, `documents`, `feeds`, `stores` and `heartbeats` are what the daemon works with
"""
