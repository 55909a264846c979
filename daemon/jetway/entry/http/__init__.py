"""The HTTP door: routes, authentication, problem documents and the API's description.

`server.HttpServer` is what the composition root builds; `doors.Doors` is what it hands over. Each module of
routes declares typed handlers with `api.route`; `api.Api` turns them into aiohttp handlers and into OpenAPI.
"""
