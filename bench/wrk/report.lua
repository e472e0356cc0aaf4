-- What every script has in common: one line of JSON at the end, for load.py to read.
function done(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "refused": %d, "broken": %d, "bytes": %d, "microseconds": %d, "p50": %d, "p99": %d}\n',
    summary.requests, failed.status, failed.connect + failed.read + failed.write + failed.timeout,
    summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99)))
end
