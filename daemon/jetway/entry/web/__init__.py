"""The dashboard: pages for people under /ui/, rendered on the server, usable without JavaScript.

`site.Site` is what the HTTP server mounts. Each module of pages declares handlers with `pages.page`; a handler
gets a `visit.Visit`, calls the same services as the API, and renders one template.
"""
