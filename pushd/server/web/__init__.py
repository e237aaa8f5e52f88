"""Resources: guards, sites and static files."""
