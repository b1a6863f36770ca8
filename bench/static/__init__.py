"""
Static files over HTTP/1.1: CPU of the server per request, against other servers.
"""
