"""Web resources: the site, the request guard and static files."""
