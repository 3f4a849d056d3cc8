"""Who may reach the server, and how much of it: TLS, tokens, the unix socket's mode and owner, limits on connections.

`access` puts it together from the settings; everything else here knows one thing each.
"""
