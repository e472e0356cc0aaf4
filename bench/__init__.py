"""The benchmark: what a request costs through this sidecar, beside what it costs through Envoy, HAProxy and mitmproxy.

``python -m bench`` runs it; ``docs/performance.md`` says what is measured and how to read it. It imports nothing of
the data plane: it starts ``python -m sidecar`` as anyone would, and looks at it from outside.
"""
