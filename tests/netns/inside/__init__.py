"""Programs that run inside a pod, as its app or as its app's client.

They are started by the path of a copy, under an interpreter that any uid can read, so they import only the standard
library.
"""
